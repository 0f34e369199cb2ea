"""The local cache of shards from S3: verified, shared, limited in size, never evicting a shard in use."""

import hashlib
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.storage import api as storage
from cluster.storage.errors import StorageError
from preprocessing.dataset.cache import DamagedShardError, ShardCache
from preprocessing.dataset.errors import DamagedDatasetError
from preprocessing.dataset.reader import ClipDataset

SIZE = 1000


@pytest.fixture
def shards(s3_bucket: str) -> list[dict[str, Any]]:
    """Store five shards of 1,000 bytes in the bucket; return their entries in a manifest."""
    found = []
    for number in range(5):
        data = bytes([number]) * SIZE
        storage.write_bytes(f"{s3_bucket}/shard{number}", data)
        found.append({"path": f"shard{number}", "size_bytes": SIZE, "sha256": hashlib.sha256(data).hexdigest()})
    return found


def cached(folder: Path, shards: list[dict[str, Any]]) -> list[int]:
    stems = {path.stem for path in (folder / "shards").glob("*.tar")}
    return [number for number, shard in enumerate(shards) if shard["sha256"] in stems]


def test_the_least_recently_used_shard_is_evicted_first_and_a_shard_in_use_stays(
    tmp_path: Path, s3_bucket: str, shards: list[dict[str, Any]]
) -> None:
    cache = ShardCache(tmp_path, 3 * SIZE)
    reader = cache.open(s3_bucket, shards[0])
    for number in (1, 2, 1, 3):
        cache.open(s3_bucket, shards[number]).close()
    assert cached(tmp_path, shards) == [0, 1, 3]
    cache.open(s3_bucket, shards[4]).close()
    assert cached(tmp_path, shards) == [0, 3, 4]
    assert reader.read() == bytes(SIZE)
    reader.close()
    cache.open(s3_bucket, shards[2]).close()
    assert cached(tmp_path, shards) == [2, 3, 4]


@pytest.mark.parametrize("name", ["room.lock", "shard.lock"])
def test_a_link_in_the_place_of_a_lock_is_named_and_its_target_left_alone(
    name: str, tmp_path: Path, s3_bucket: str, shards: list[dict[str, Any]]
) -> None:
    (tmp_path / "precious").write_text("content")
    lock = tmp_path / "shards" / name.replace("shard", shards[0]["sha256"])
    lock.parent.mkdir()
    lock.symlink_to(tmp_path / "precious")
    with pytest.raises(StorageError, match=f"^{lock} is a symbolic link"):
        ShardCache(tmp_path, 3 * SIZE).open(s3_bucket, shards[0])
    assert (tmp_path / "precious").read_text() == "content"


def test_nothing_is_downloaded_ahead_while_everything_is_in_use(
    tmp_path: Path, s3_bucket: str, shards: list[dict[str, Any]]
) -> None:
    cache = ShardCache(tmp_path, 2 * SIZE)
    readers = [cache.open(s3_bucket, shard) for shard in shards[:2]]
    assert not cache.prepare(s3_bucket, shards[2])
    assert cached(tmp_path, shards) == [0, 1]
    # A shard that is needed now is downloaded all the same.
    readers.append(cache.open(s3_bucket, shards[2]))
    assert cached(tmp_path, shards) == [0, 1, 2]
    readers[0].close()
    readers[1].close()
    assert cache.prepare(s3_bucket, shards[3])
    assert cached(tmp_path, shards) == [2, 3]
    readers[2].close()


def test_a_reader_in_another_process_keeps_its_shard(
    tmp_path: Path, root: Path, s3_bucket: str, shards: list[dict[str, Any]]
) -> None:
    code = (
        "import sys, json, mmap; from pathlib import Path; from preprocessing.dataset.cache import ShardCache\n"
        "folder, url, shard = sys.argv[1:]\n"
        "with ShardCache(Path(folder), 10**9).open(url, json.loads(shard)) as file:\n"
        "    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n"
        "print('ready', flush=True); input(); print(mapped[:3].hex())"
    )
    command = [sys.executable, "-c", code, str(tmp_path), s3_bucket, json.dumps(shards[3])]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        cache = ShardCache(tmp_path, SIZE)
        for shard in (shards[0], shards[1]):
            cache.open(s3_bucket, shard).close()
        # The memory map alone holds the lock; the file is closed.
        assert cached(tmp_path, shards) == [1, 3]
        assert other.communicate("\n")[0] == "030303\n"
    cache.open(s3_bucket, shards[0]).close()
    assert cached(tmp_path, shards) == [0]


def test_many_readers_of_a_cache_that_is_too_small_read_the_right_bytes(
    tmp_path: Path, s3_bucket: str, shards: list[dict[str, Any]], trials: Callable[[int], int]
) -> None:
    wrong: list[Any] = []

    def read(seed: int) -> None:
        cache, random = ShardCache(tmp_path, 2 * SIZE), np.random.default_rng(seed)
        try:
            for number in random.integers(0, 5, trials(30)).tolist():
                if random.random() < 0.3:
                    cache.prepare(s3_bucket, shards[number])
                with cache.open(s3_bucket, shards[number]) as file:
                    if file.read() != bytes([number]) * SIZE:
                        wrong.append(number)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_shard_that_does_not_match_the_manifest_is_downloaded_again_and_refused(
    tmp_path: Path, s3_bucket: str, shards: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    storage.write_bytes(f"{s3_bucket}/shard1", bytes([1]) * (SIZE - 1) + b"\0")
    with caplog.at_level(logging.WARNING), pytest.raises(DamagedShardError, match="shard1"):
        ShardCache(tmp_path, 10 * SIZE).open(s3_bucket, shards[1])
    assert [f"{s3_bucket}/shard1: its length or SHA-256" in line for line in caplog.messages] == [True, True]
    assert "downloading it again" in caplog.messages[0]
    assert cached(tmp_path, shards) == []


def test_a_huge_size_empties_no_cache(tmp_path: Path, s3_bucket: str, shards: list[dict[str, Any]]) -> None:
    cache = ShardCache(tmp_path, 10 * SIZE)
    for shard in shards[:3]:
        cache.open(s3_bucket, shard).close()
    for request in (cache.open, cache.prepare):
        with pytest.raises(DamagedShardError, match="shard4"):
            request(s3_bucket, shards[4] | {"size_bytes": 9 * SIZE})
    assert cached(tmp_path, shards) == [0, 1, 2]


def test_a_bad_download_is_repeated(
    tmp_path: Path,
    s3_bucket: str,
    shards: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    download, calls = storage.download, []

    def flipped(url: str, path: Path) -> None:
        download(url, path)
        calls.append(url)
        if len(calls) == 1:
            path.write_bytes(b"x" + path.read_bytes()[1:])

    monkeypatch.setattr(storage, "download", flipped)
    with ShardCache(tmp_path, 10 * SIZE).open(s3_bucket, shards[2]) as file:
        assert file.read() == bytes([2]) * SIZE
    assert len(calls) == 2


def upload(figures_dataset: Path, url: str) -> None:
    for name in storage.list_files(str(figures_dataset)):
        storage.upload(figures_dataset / name, storage.join(url, name))


def test_a_dataset_in_s3_is_read_through_a_cache_smaller_than_itself(
    tmp_path: Path, figures_dataset: Path, s3_bucket: str
) -> None:
    upload(figures_dataset, s3_bucket)
    local = ClipDataset(str(figures_dataset), "train")
    sizes = [shard["size_bytes"] for shard in local.manifest["shards"] if shard["split"] == "train"]
    assert len(sizes) > 3
    capacity = 2 * max(sizes)
    remote = ClipDataset(s3_bucket, "train", cache=tmp_path, cache_bytes=capacity)
    for index in np.random.default_rng(0).permutation(len(local)).tolist():
        assert np.array_equal(remote.frames(index), local.frames(index))
        held = sum(path.stat().st_size for path in (tmp_path / "shards").glob("*.tar"))
        assert held <= capacity


def test_a_copy_that_was_changed_locally_is_downloaded_again(
    tmp_path: Path, figures_dataset: Path, s3_bucket: str
) -> None:
    upload(figures_dataset, s3_bucket)
    remote = ClipDataset(s3_bucket, "train", cache=tmp_path)
    expected = remote.frames(0)
    (copy,) = (tmp_path / "shards").glob("*.tar")
    data = copy.read_bytes()
    with copy.open("r+b") as file:
        file.write(bytes(len(data)))
    assert np.array_equal(remote.frames(0), expected)
    assert next((tmp_path / "shards").glob("*.tar")).read_bytes() == data


def test_a_shard_that_is_damaged_in_s3_is_named(tmp_path: Path, figures_dataset: Path, s3_bucket: str) -> None:
    upload(figures_dataset, s3_bucket)
    name = "train/shard-000001.tar"
    data = bytearray((figures_dataset / name).read_bytes())
    data[100] ^= 1
    storage.write_bytes(f"{s3_bucket}/{name}", bytes(data))
    remote = ClipDataset(s3_bucket, "train", cache=tmp_path)
    remote.frames(0)
    with pytest.raises(DamagedDatasetError, match=f"{s3_bucket}/{name}: its length or SHA-256"):
        remote.frames(remote.clip_shards.index(1))


def test_what_one_more_shard_costs_does_not_depend_on_how_many_are_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(url: str, path: Path) -> None:
        path.write_bytes(url.removeprefix("data/").encode().ljust(SIZE))

    monkeypatch.setattr(storage, "download", fetch)
    monkeypatch.setattr(storage, "size", lambda _: SIZE)
    cache, listed, glob = ShardCache(tmp_path, 40 * SIZE), [], Path.glob
    monkeypatch.setattr(Path, "glob", lambda path, pattern: listed.append(path) or glob(path, pattern))
    for number in range(120):
        digest = hashlib.sha256(str(number).encode().ljust(SIZE)).hexdigest()
        shard: Any = {"path": str(number), "size_bytes": SIZE, "sha256": digest}
        cache.open("data", shard).close()
        assert sum(path.stat().st_size for path in tmp_path.rglob("*.tar")) == min(number + 1, 40) * SIZE
        newest = shard["sha256"]
    listings = [path for path in listed if path == tmp_path / "shards"]
    assert len(listings) <= 4, "the first time, and whenever all 40 shards of the last listing were evicted"
    assert [path.name for path in tmp_path.rglob("*.lock")] == ["room.lock"]
    # A process that was killed, or a user who deleted a shard, leaves a wrong total behind.
    (tmp_path / "shards" / f"{newest}.tar").unlink()
    for number in range(120, 200):
        digest = hashlib.sha256(str(number).encode().ljust(SIZE)).hexdigest()
        again: Any = {"path": str(number), "size_bytes": SIZE, "sha256": digest}
        cache.open("data", again).close()
    assert len(list(tmp_path.rglob("*.tar"))) == 40

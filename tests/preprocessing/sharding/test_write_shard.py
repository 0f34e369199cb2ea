"""A shard is committed in two steps, tar and index, and only a shard whose both steps were taken counts as finished."""

import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import StorageError, UnreachableError
from preprocessing.clip import Clip, Item, RejectedInputError, TransientError
from preprocessing.dataset.format import encode_json
from preprocessing.dataset.writer import ShardWriter
from preprocessing.sharding import reading
from preprocessing.sharding.plan import ShardPlan
from preprocessing.sharding.write_shard import find_finished_shard, write_shard
from tests.preprocessing.dataset.test_statistics import Waves

PLAN = "1" * 64


def shard_of(*numbers: int, path: str = "train/shard-000003.tar") -> ShardPlan:
    return ShardPlan(path, "train", tuple(Waves().items()[number] for number in numbers))


def write(folder: Path, shard: ShardPlan, clips: Any = None, patience_s: float = 0.0) -> dict[str, Any]:
    """Write a shard and return its index."""
    write_shard(str(folder), PLAN, shard, Waves(), clips, patience_s)
    index: dict[str, Any] = json.loads((folder / shard.index_path).read_text())
    return index


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_bytes_of_a_shard_and_its_index_are_those_of_earlier_versions(tmp_path: Path) -> None:
    def clips(item: Item) -> Iterator[Clip]:
        for part in range(2):
            frames = (np.arange(3 * 8 * 10 * 3) % 251 + part).astype(np.uint8).reshape(3, 8, 10, 3)
            labels = {"action": part, "weight": 0.25, "angle": [0.0, -0.5, 1.0]}
            yield Clip(f"{item.key}-{part}", frames, labels, item.key, "known", 0.5 * part, 12.5)

    # Known values: if they change, the shards of an interrupted dataset differ from those written after it is resumed.
    index = write(tmp_path, shard_of(0, 2), clips)
    found = {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in files(tmp_path)}
    assert found == {
        "train/shard-000003.tar": "9b217a4cee8fed73f410d335b7e38ea8c589571022749bd98eba057453fe0f0a",
        "train/shard-000003.json": "7625e32ca13f82e4f4f663def58d561e780d643b5cbf9bd3fbcc07fce416cb94",
        "appearance/train/shard-000003.npy": "7ca505fdf73f5d80cd51d191dbc7b41045f501057776a20980283b22b6616962",
    }
    # Without what clips look like, the index has the bytes of the first version.
    del index["appearance"]
    earlier = hashlib.sha256(encode_json(index)).hexdigest()
    assert earlier == "1417723bcd5d102d42855a6c222640383a8e4bad33ab5e9fc94b5bce7c000cb8"


def test_the_index_describes_the_tar_byte_by_byte(tmp_path: Path) -> None:
    index = write(tmp_path, shard_of(2, 1))
    data = (tmp_path / "train/shard-000003.tar").read_bytes()
    clips = [clip for number in (2, 1) for clip in Waves().clips(Waves().items()[number])]
    assert (index["schema_version"], index["plan_sha256"]) == (2, PLAN)
    assert (index["shard"], index["split"]) == ("train/shard-000003.tar", "train")
    assert (index["sha256"], index["size_bytes"]) == (hashlib.sha256(data).hexdigest(), len(data))
    assert (index["clips"], index["statistics"]["frames"]) == (5, sum(len(clip.frames) for clip in clips))
    for sample, clip in zip(index["samples"], clips, strict=True):
        member = data[sample["frames_offset"] :][: sample["frames_length"]]
        assert zlib.crc32(member) == sample["frames_crc32"]
        np.testing.assert_array_equal(np.load(io.BytesIO(member), allow_pickle=False), clip.frames)
        assert (sample["key"], sample["shape"]) == (clip.key, list(clip.frames.shape))
        about = {name: sample[name] for name in ("labels", "identity", "source", "start_s", "fps")}
        assert about == {name: getattr(clip, name) for name in about}
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            described = tar.extractfile(f"{clip.key}.json")
            assert described is not None
            assert json.loads(described.read()) == about


def test_a_tar_is_whole_records_of_members_that_anyone_may_read(tmp_path: Path) -> None:
    write(tmp_path, shard_of(0, 1))
    path = tmp_path / "train/shard-000003.tar"
    assert path.stat().st_size % tarfile.RECORDSIZE == 0
    assert path.read_bytes()[-2 * tarfile.BLOCKSIZE :] == bytes(2 * tarfile.BLOCKSIZE)
    with tarfile.open(path) as tar:
        members = tar.getmembers()
    names = [f"{key}{suffix}" for key in ("w0-0", "w1-0", "w1-1") for suffix in (".frames.npy", ".json")]
    assert [member.name for member in members] == names
    assert {(one.mode, one.uname, one.gname, one.uid, one.gid, one.mtime) for one in members} == {
        (0o444, "vdsm", "vdsm", 0, 0, 0)
    }


def test_a_tar_has_two_empty_blocks_at_its_end_whatever_its_size() -> None:
    draw = np.random.default_rng(0)
    for frames in (1, 7, 14, 15, 16, 17, 18, 19, 20):
        file = io.BytesIO()
        writer = ShardWriter(file, Waves())
        clip = draw.integers(0, 256, (frames, 512, 1, 1), dtype=np.uint8)
        writer.add(Clip("key", clip, {"action": 0, "weight": 0.0, "angle": [0.0] * frames}, "i", "s", 0.0, 1.0))
        content = writer.close()
        data = file.getvalue()
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            last = tar.getmembers()[-1]
            end = last.offset_data + -(-last.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        assert 2 * tarfile.BLOCKSIZE <= len(data) - end < 2 * tarfile.BLOCKSIZE + tarfile.RECORDSIZE
        assert len(data) % tarfile.RECORDSIZE == 0
        assert content["size_bytes"] == len(data)


def rejecting(*keys: str) -> Callable[[Item], Iterator[Clip]]:
    """Return a function that yields the first clip of an item, and rejects the items `keys` after it."""

    def clips(item: Item) -> Iterator[Clip]:
        if item.key == "w1":
            raise RejectedInputError("no frames", "at the start")
        yield next(Waves().clips(item))
        if item.key in keys:
            raise RejectedInputError("cut off", "frame 9")

    return clips


def test_rejected_inputs_are_in_the_index_and_their_clips_are_kept(tmp_path: Path) -> None:
    index = write(tmp_path, shard_of(0, 1, 2), rejecting("w2"))
    assert [sample["key"] for sample in index["samples"]] == ["w0-0", "w2-0"]
    assert index["rejects"] == [
        {"path": "w1", "reason": "no frames", "where": "at the start", "clips": 0, "split": "train"},
        {"path": "w2", "reason": "cut off", "where": "frame 9", "clips": 1, "split": "train"},
    ]


def test_a_shard_whose_inputs_are_all_rejected_has_an_index_and_no_tar(tmp_path: Path) -> None:
    index = write(tmp_path, shard_of(1), rejecting())
    assert files(tmp_path) == {"train/shard-000003.json"}
    assert (index["clips"], index["size_bytes"], index["samples"]) == (0, 0, [])
    assert index["sha256"] == hashlib.sha256(b"").hexdigest()
    assert len(index["rejects"]) == 1
    found = find_finished_shard(str(tmp_path), PLAN, shard_of(1))
    assert found is not None
    assert found.index["rejects"] == index["rejects"]


def test_the_index_is_written_after_the_tar_and_not_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, url: str) -> None:
        raise StorageError("no space left")

    monkeypatch.setattr(storage, "upload", full)
    with pytest.raises(StorageError, match="no space left"):
        write(tmp_path, shard_of(0))
    assert files(tmp_path) == set()
    monkeypatch.undo()
    monkeypatch.setattr(storage, "write_bytes", lambda url, data: full(Path(), url))
    with pytest.raises(StorageError, match="no space left"):
        write(tmp_path, shard_of(0))
    assert files(tmp_path) == {"train/shard-000003.tar"}
    assert find_finished_shard(str(tmp_path), PLAN, shard_of(0)) is None


def test_both_writes_are_repeated_while_storage_does_not_respond(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = write(tmp_path / "undisturbed", shard_of(0))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    failed = []
    for name in ("upload", "write_bytes"):
        function = getattr(storage, name)

        def once(*args: Any, name: str = name, function: Any = function) -> None:
            if name not in failed:
                failed.append(name)
                raise UnreachableError("it is down")
            function(*args)

        monkeypatch.setattr(storage, name, once)
    with pytest.raises(UnreachableError):
        write(tmp_path / "data", shard_of(0))
    with pytest.raises(UnreachableError):
        write(tmp_path / "data", shard_of(0))
    failed.clear()
    assert write(tmp_path / "data", shard_of(0), patience_s=60) == expected
    assert failed == ["upload", "write_bytes"]


def test_an_input_that_does_not_respond_is_read_again_for_as_long_as_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading.time, "sleep", lambda seconds: None)
    failures = iter([TransientError("it is down")] * 2)

    def clips(item: Item) -> Iterator[Clip]:
        yield from list(Waves().clips(item))[:1]
        for failure in failures:
            raise failure
        yield from list(Waves().clips(item))[1:]

    with pytest.raises(UserError, match="w2 could not be read for 0 s"):
        write(tmp_path / "impatient", shard_of(2), clips)
    assert write(tmp_path / "data", shard_of(2), clips, patience_s=60) == write(tmp_path / "plain", shard_of(2))


def test_a_finished_shard_is_found_with_the_summary_that_writing_it_returned(tmp_path: Path) -> None:
    written = write_shard(str(tmp_path), PLAN, shard_of(0, 3), Waves())
    found = find_finished_shard(str(tmp_path), PLAN, shard_of(0, 3))
    assert found is not None
    assert (found.index, found.index_sha256) == (written.index, written.index_sha256)
    assert found.index_sha256 == hashlib.sha256((tmp_path / "train/shard-000003.json").read_bytes()).hexdigest()
    assert "samples" not in found.index
    np.testing.assert_array_equal(found.keys, written.keys)
    np.testing.assert_array_equal(found.identities, written.identities)
    assert (len(found.keys), len(found.identities)) == (5, 2)


def test_an_index_that_is_not_of_this_shard_does_not_count(tmp_path: Path) -> None:
    write(tmp_path, shard_of(0))
    other = shard_of(0, path="train/shard-000004.tar")
    for suffix in (".tar", ".json"):
        (tmp_path / f"train/shard-000004{suffix}").write_bytes((tmp_path / f"train/shard-000003{suffix}").read_bytes())
    assert find_finished_shard(str(tmp_path), PLAN, shard_of(0)) is not None
    assert find_finished_shard(str(tmp_path), "2" * 64, shard_of(0)) is None
    assert find_finished_shard(str(tmp_path), PLAN, other) is None
    assert find_finished_shard(str(tmp_path), PLAN, shard_of(0, path="test/shard-000003.tar")) is None


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", '"text"', "{}", '{"samples": []}', '{"samples": [{}]}', "\xff"]
)
def test_an_index_that_cannot_be_read_does_not_count(tmp_path: Path, content: str) -> None:
    write(tmp_path, shard_of(0))
    (tmp_path / "train/shard-000003.json").write_bytes(content.encode("latin-1"))
    assert find_finished_shard(str(tmp_path), PLAN, shard_of(0)) is None


def test_a_tar_that_is_missing_or_has_another_length_does_not_count(tmp_path: Path) -> None:
    write(tmp_path, shard_of(0))
    tar = tmp_path / "train/shard-000003.tar"
    data = tar.read_bytes()
    for changed in (data[:-1], data + b"\0", b""):
        tar.write_bytes(changed)
        assert find_finished_shard(str(tmp_path), PLAN, shard_of(0)) is None
    tar.unlink()
    assert find_finished_shard(str(tmp_path), PLAN, shard_of(0)) is None


def test_storage_that_refuses_is_not_taken_for_an_unfinished_shard(tmp_path: Path) -> None:
    (tmp_path / "train").write_text("a file in place of the folder")
    with pytest.raises(StorageError, match=r"train/shard-000003\.json: Not a directory"):
        find_finished_shard(str(tmp_path), PLAN, shard_of(0))


def test_an_invalid_clip_is_refused(tmp_path: Path) -> None:
    def clips(item: Item) -> Iterator[Clip]:
        yield Clip("a.b", np.zeros((1, 1, 1, 1), np.uint8), {}, "i", "s", 0.0, 1.0)

    with pytest.raises(ValueError, match=r"clip key 'a.b'"):
        write(tmp_path, shard_of(0), clips)
    assert files(tmp_path) == set()

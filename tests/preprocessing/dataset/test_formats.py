"""Formats 2 and 3 hold the same clips, an upgrade makes one of the other, and a foreign Arrow file is checked."""

import hashlib
import json
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from cluster.errors import UserError
from cluster.storage import api as storage
from pipeline.runs.store import data_hash
from preprocessing.clip import SPLITS
from preprocessing.dataset import mapped_file
from preprocessing.dataset.errors import DamagedDatasetError
from preprocessing.dataset.index import read_index
from preprocessing.dataset.manifest import clips_of, read_manifest, shards_of, write_manifest
from preprocessing.dataset.reader import ClipDataset
from preprocessing.dataset.upgrade import upgrade_dataset
from preprocessing.dataset.verify_dataset import verify_dataset
from tests.fuzz import seeds
from tests.preprocessing.dataset import slow_arrow
from tests.preprocessing.dataset.memory_source import MemorySource, sources, write_dataset
from tests.property_settings import examples

COLUMNS = seeds.COLUMNS


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the same small dataset in format 2, in format 3, and upgraded."""
    folder = tmp_path_factory.mktemp("formats")
    for version in (2, 3):
        seeds.write_dataset(folder / str(version), version)
    shutil.copytree(folder / "2", folder / "upgraded")
    upgrade_dataset(str(folder / "upgraded"))
    return folder


def assert_same_clips(a: ClipDataset, b: ClipDataset) -> None:
    assert len(a) == len(b)
    for name in ("keys", "identities", "sources", "clip_frames", "clip_shards"):
        assert list(getattr(a, name)) == list(getattr(b, name)), name
        assert getattr(b, name) == list(getattr(a, name))
    for one, other in ((a.labels, b.labels), (a.factors, b.factors)):
        assert one.keys() == other.keys()
        for name, column in one.items():
            assert (column.dtype, column.tolist()) == (other[name].dtype, other[name].tolist())
    assert (a.fps.tolist(), a.starts_s.tolist()) == (b.fps.tolist(), b.starts_s.tolist())
    for index in range(len(a)):
        assert np.array_equal(a.frames(index), b.frames(index))
        assert {n: t.tolist() for n, t in a.tracks(index).items()} == {
            n: t.tolist() for n, t in b.tracks(index).items()
        }
        assert b.keys[index] == a.keys[index]
        assert b.clip_frames[index] == a.clip_frames[index]
        assert b.clip_shards[index] == a.clip_shards[index]


@pytest.mark.slow
@examples(15)
@given(sources())
def test_all_formats_hold_the_same_clips(tmp_path_factory: pytest.TempPathFactory, source: MemorySource) -> None:
    folder = tmp_path_factory.mktemp("same")
    write_dataset(folder / "2", source, version=2)
    write_dataset(folder / "3", source, version=3)
    shutil.copytree(folder / "2", folder / "upgraded")
    upgrade_dataset(str(folder / "upgraded"))
    for name in ("3", "upgraded"):
        verify_dataset(str(folder / name))
        for split in SPLITS:
            assert_same_clips(ClipDataset(str(folder / "2"), split), ClipDataset(str(folder / name), split))
    tables = [(folder / name / "shards.arrow").read_bytes() for name in ("3", "upgraded")]
    columns = [[path.read_bytes() for path in sorted((folder / name).glob("t*/*.arrow"))] for name in ("3", "upgraded")]
    assert columns[0] == columns[1]
    assert [slow_arrow.read(table)["columns_sha256"] for table in tables] == [
        [hashlib.sha256(data).digest() for data in sorted(columns[0], key=lambda data: order(data, tables[0]))]
    ] * 2


def order(columns: bytes, table: bytes) -> int:
    """Return the row of the table that names an index."""
    return slow_arrow.read(table)["columns_sha256"].index(hashlib.sha256(columns).digest())


def test_an_index_lists_what_the_json_index_of_format_2_lists(made: Path) -> None:
    (two, _), (three, _) = (read_manifest(str(made / name)) for name in ("2", "3"))
    for shard, other in zip(two["shards"], three["shards"], strict=True):
        samples = read_index(str(made / "2"), shard)["samples"]
        assert read_index(str(made / "3"), other)["samples"] == samples
        rows = slow_arrow.read((made / "3" / other["path"]).with_suffix(".arrow").read_bytes())
        assert rows["key"] == [sample["key"] for sample in samples]
        assert rows["frames_offset"] == [sample["frames_offset"] for sample in samples]
        assert rows["label:action"] == [sample["labels"]["action"] for sample in samples]
        assert rows["factor:angle"] == [sample["labels"]["angle"] for sample in samples]
        hashes = [int.from_bytes(hashlib.sha256(sample["identity"].encode()).digest()[:8], "big") for sample in samples]
        assert rows["identity_hash"] == hashes


def test_the_table_has_the_entries_of_the_manifest_of_format_2(made: Path) -> None:
    (two, _), (three, _) = (read_manifest(str(made / name)) for name in ("2", "upgraded"))
    shards = three["shards"]
    for old, new in zip(two["shards"], shards, strict=True):
        assert {name: old[name] for name in new.keys() & old.keys()} == {n: new[n] for n in new.keys() & old.keys()}
        columns = (made / "upgraded" / new["path"]).with_suffix(".arrow").read_bytes()
        assert (new["columns_sha256"], new["columns_bytes"]) == (hashlib.sha256(columns).hexdigest(), len(columns))
    for split in SPLITS:
        assert [one["path"] for one in shards_of(three, split)] == [one["path"] for one in shards_of(two, split)]
        assert clips_of(three, split) == clips_of(two, split)
    assert (shards[-1], shards[0:1]) == (list(shards)[-1], [shards[0]])
    with pytest.raises(IndexError):
        shards[len(shards)]


def test_an_upgrade_keeps_the_content_hash_and_all_old_files(made: Path) -> None:
    hashes = {data_hash(read_manifest(str(made / name))[0]) for name in ("2", "3", "upgraded")}
    assert len(hashes) == 1
    old = {path.relative_to(made / "2") for path in (made / "2").rglob("*") if path.is_file()}
    changed = {path for path in old if (made / "2" / path).read_bytes() != (made / "upgraded" / path).read_bytes()}
    assert changed == {Path("manifest.json")}
    before = (made / "upgraded" / "manifest.json").stat().st_mtime_ns
    upgrade_dataset(str(made / "upgraded"))
    assert (made / "upgraded" / "manifest.json").stat().st_mtime_ns == before


def test_an_upgrade_in_s3_is_read_from_there(
    made: Path, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = storage.join(s3_bucket, "data")
    monkeypatch.setenv("VDSM_CACHE", str(tmp_path / "cache"))
    for path in (made / "2").rglob("*"):
        if path.is_file():
            storage.upload(path, storage.join(url, path.relative_to(made / "2").as_posix()))
    upgrade_dataset(url)
    verify_dataset(url)
    found = ClipDataset(url, "train")
    assert_same_clips(ClipDataset(str(made / "2"), "train"), found)
    kept = {path.name for path in (tmp_path / "cache" / "shards").glob("*.tar")}
    table = found.manifest["table"]
    entry = found.shards[0]
    assert {f"{one}.tar" for one in (table["sha256"], entry["columns_sha256"], entry["sha256"])} <= kept


def test_a_dataset_of_format_3_can_be_sent_to_another_process(made: Path) -> None:
    clips = ClipDataset(str(made / "3"), "train")
    again = pickle.loads(pickle.dumps(clips))
    assert_same_clips(clips, again)


def test_indexes_are_opened_when_a_clip_of_theirs_is_needed(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr(
        "preprocessing.dataset.mapped_clips.map_stored",
        lambda url, file, cache: opened.append(file["path"]) or mapped_file.map_stored(url, file, cache),
    )
    clips = ClipDataset(str(made / "3"), "train")
    assert len(clips) == 4
    assert clips.clip_shards == [0] * 4
    assert opened == []
    clips.frames(1)
    assert clips.keys[2] == ClipDataset(str(made / "2"), "train").keys[2]
    assert opened == [COLUMNS]


KILLED = """
import os, signal, sys
from preprocessing.dataset import upgrade
from cluster.storage import api as storage
url, stop = sys.argv[1], int(sys.argv[2])
write, count = storage.write_bytes, 0
def counted(path, data):
    global count
    if count == stop:
        open(path + ".torn-" + "0" * 8, "wb").write(data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    count += 1
    write(path, data)
storage.write_bytes = counted
upgrade.upgrade_dataset(url)
"""


@pytest.mark.slow
@pytest.mark.parametrize("stop", range(4))
def test_an_upgrade_that_is_killed_leaves_format_2_and_is_resumed(made: Path, tmp_path: Path, stop: int) -> None:
    copy = tmp_path / "data"
    shutil.copytree(made / "2", copy)
    ended = subprocess.run([sys.executable, "-c", KILLED, str(copy), str(stop)], check=False, timeout=300)
    assert ended.returncode == -signal.SIGKILL
    for path in copy.rglob("*.torn-*"):
        path.unlink()
    assert read_manifest(str(copy))[0]["schema_version"] == 2
    verify_dataset(str(copy))
    upgrade_dataset(str(copy))
    assert files(copy) == files(made / "upgraded")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_upgrade_refuses_what_the_columns_cannot_hold(made: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(made / "2", copy)
    path, manifest = copy / seeds.INDEX, json.loads((copy / "manifest.json").read_text())
    index = json.loads(path.read_text())
    index["samples"][1]["labels"]["weight"] = 2**53 + 1
    path.write_text(json.dumps(index))
    manifest["shards"][0]["index_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedDatasetError, match=r"gives clip .* the weight 9007199254740993, which is no float64"):
        upgrade_dataset(str(copy))
    (copy / "manifest.json").write_bytes(seeds.first_version(made / "2"))
    with pytest.raises(UserError, match="older format, which can be read but not upgraded"):
        upgrade_dataset(str(copy))


def test_a_split_without_clips_is_empty(made: Path, tmp_path: Path) -> None:
    manifest, _ = read_manifest(str(made / "2"))
    manifest["shards"] = []
    manifest["schema_version"] = 3
    write_manifest(str(tmp_path), manifest)
    clips = ClipDataset(str(tmp_path), "train")
    assert (len(clips), list(clips.keys), clips.identities, list(clips.clip_shards)) == (0, [], [], [])
    assert {name: len(column) for name, column in clips.labels.items()} == {"action": 0, "hat": 0}
    assert np.asarray(clips.clip_frames).tolist() == np.asarray(clips.clip_shards).tolist() == []
    assert not clips.keys

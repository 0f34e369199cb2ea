"""Formats 2 and 3 hold the same clips, an upgrade makes one of the other, and a foreign Arrow file is checked."""

import hashlib
import json
import math
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from cluster.errors import UserError
from cluster.storage import api as storage
from pipeline.runs.store import data_hash
from preprocessing.clip import SPLITS
from preprocessing.dataset import arrow_file, mapped_file
from preprocessing.dataset.errors import DamagedDatasetError
from preprocessing.dataset.index import read_index
from preprocessing.dataset.manifest import clips_of, read_manifest, shards_of
from preprocessing.dataset.reader import ClipDataset
from preprocessing.dataset.upgrade import upgrade_dataset
from preprocessing.dataset.verify_dataset import verify_dataset
from preprocessing.dataset.verify_shard import VerificationError
from tests.fuzz import seeds
from tests.preprocessing.dataset import slow_arrow
from tests.preprocessing.dataset.memory_source import MemorySource, sources, write_dataset
from tests.property_settings import examples

COLUMNS = "train/shard-000000.arrow"


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


def changed_columns(folder: Path, change: Callable[[dict[str, Any]], None], file: str = COLUMNS) -> None:
    """Change an Arrow file, whose hash stays right in what names it."""
    path = folder / file
    columns = arrow_file.decode(path.read_bytes())
    rows: dict[str, Any] = {}
    for name, kind in columns.kinds.items():
        is_ragged = kind in ("text", "numbers", "bytes")
        rows[name] = columns.ragged(name) if is_ragged else columns.array(name).copy()
    change(rows)
    path.write_bytes(arrow_file.encode(rows, columns.kinds))
    rehash(folder, file)


def rehash(folder: Path, file: str) -> None:
    data = (folder / file).read_bytes()
    if file == COLUMNS:

        def name_it(rows: dict[str, Any]) -> None:
            rows["columns_sha256"][0] = np.frombuffer(hashlib.sha256(data).digest(), dtype=np.uint8)
            rows["columns_bytes"][0] = len(data)

        changed_columns(folder, name_it, "shards.arrow")
        return
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["table"] |= {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def use(folder: Path) -> None:
    """Read whatever a training and an evaluation read."""
    clips = ClipDataset(str(folder), "train")
    for name in ("labels", "factors", "fps", "starts_s", "identities", "sources"):
        getattr(clips, name)
    for index in range(len(clips)):
        clips.tracks(index), clips.frames(index), clips.keys[index], clips.clip_frames[index]


def put(name: str, value: Any, row: int = 1) -> Callable[[dict[str, Any]], None]:
    def change(rows: dict[str, Any]) -> None:
        if name == "factor:angle" and isinstance(value, list):
            rows[name] = arrow_file.Ragged(np.array(value, dtype=np.int32), np.zeros(8))
        elif name == "factor:angle":
            rows[name] = arrow_file.Ragged(rows[name].offsets, np.full(8, value))
        elif isinstance(value, str):
            texts = [rows[name].text(number) for number in range(len(rows[name]))]
            texts[row] = value
            rows[name] = arrow_file.ragged([text.encode("utf-8", "surrogatepass") for text in texts])
        else:
            rows[name][row] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("frames", 0), "gives clip i0-1 0 frames"),
        (put("height", 900), "gives clip i0-1 152 bytes for [2, 900, 4, 1] values"),
        (put("height", -1), "gives clip i0-1 a shape of [2, -1, 4, 1]"),
        (put("width", 2**31 - 1), "gives clip i0-1 152 bytes for [2, 3, 2147483647, 1] values"),
        (put("frames_length", 10**13), "gives clip i0-1 10000000000000 bytes for [2, 3, 4, 1] values"),
        (put("frames_length", -5), "gives clip i0-1 -5 bytes for"),
        (put("frames_offset", 10**13), "gives clip i0-1 a place after the end of its shard, which has 10240 bytes"),
        (put("frames_offset", -1), "gives clip i0-1 a place after the end"),
        (put("frames_offset", 2**63 - 1), "gives clip i0-1 a place after the end"),
        (put("fps", 0), "gives clip i0-1 0.0 frames per second"),
        (put("fps", np.nan), "gives clip i0-1 nan frames per second"),
        (put("start_s", np.inf), "gives clip i0-1 inf as start"),
        (put("label:hat", 2), "gives clip i0-1 no label hat from the vocabulary"),
        (put("label:hat", -1), "gives clip i0-1 no label hat from the vocabulary"),
        (put("factor:weight", np.nan), "gives clip i0-1 the weight nan, which is not a finite number"),
        (put("key", "../a"), "samples[1].key is '../a'; it must be letters, digits, _ and - only"),
        (put("key", ""), "samples[1].key is ''"),
        (put("identity", "\ud800"), "is not UTF-8 text"),
        (put("identity", "a" * 100_001), "samples[1].identity has 100,001 characters; it must have at most 100,000"),
        (put("factor:angle", [0, 1, 4, 6, 8]), "gives clip i0-0 no value of angle for each frame"),
        (put("factor:angle", math.nan), "has values of angle that are not finite"),
    ],
)  # fmt: skip
def test_a_value_of_an_index_is_checked(made: Path, tmp_path: Path, change: Any, message: str) -> None:
    copy = tmp_path / "data"
    shutil.copytree(made / "3", copy)
    changed_columns(copy, change)
    with pytest.raises(DamagedDatasetError) as raised:
        use(copy)
    assert f"{COLUMNS}: {message}" in str(raised.value)
    assert str(raised.value).isprintable()
    with pytest.raises((DamagedDatasetError, VerificationError)):
        verify_dataset(str(copy))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("path", "/etc/passwd", 0), "shards[0].path is '/etc/passwd'; it must be a relative path"),
        (put("path", "train/../../a.tar", 0), "shards[0].path is"),
        (put("path", "train/a\0.tar", 0), "shards[0].path is"),
        (put("split", 2, 0), "gives shard 0 a split that the manifest does not have"),
        (put("clips", 0, 0), "gives shard 0 a wrong `clips`"),
        (put("clips", 5, 0), "lists 4 clips, but the manifest says 5"),
        (put("clips", 2**62, 0), "lists 4 clips, but the manifest says 4611686018427387904"),
        (put("size_bytes", -1, 0), "gives shard 0 a wrong `size_bytes`"),
        (put("size_bytes", 10**13, 0), "it has 10240 bytes, but the manifest says 10000000000000"),
        (put("columns_bytes", 10**13, 0), "has more than 268,435,456 bytes, which is the limit"),
        (put("columns_bytes", 7, 0), "its SHA-256 does not match the manifest"),
        (put("columns_sha256", 0, 0), "its SHA-256 does not match the manifest"),
    ],
)  # fmt: skip
def test_a_value_of_the_table_is_checked(made: Path, tmp_path: Path, change: Any, message: str) -> None:
    copy = tmp_path / "data"
    shutil.copytree(made / "3", copy)
    changed_columns(copy, change, "shards.arrow")
    with pytest.raises(DamagedDatasetError) as raised:
        use(copy)
    assert message in str(raised.value)


@pytest.mark.parametrize("file", ["shards.arrow", COLUMNS])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "it is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "SHA-256 does not match"),
        (lambda path: path.write_bytes(b""), "SHA-256 does not match"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "not a regular file"),
        (lambda path: (path.unlink(), path.mkdir()), "(Is a directory|not a regular file)"),
    ],
)
def test_a_file_that_is_not_as_it_was_written_is_named(
    made: Path, tmp_path: Path, file: str, damage: Any, message: str
) -> None:
    copy = tmp_path / "data"
    shutil.copytree(made / "3", copy)
    damage(copy / file)
    for action in (use, lambda folder: verify_dataset(str(folder))):
        with pytest.raises(UserError, match=f"{re.escape(file)}: .*{message}"):
            action(copy)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("table", None, "table is null; it must be an object"),
        ("path", "../shards.arrow", "table.path is"),
        ("shards", 10**9, "lists 2 shards, but the manifest says 1000000000"),
        ("sha256", "x", "table.sha256 is"),
        ("size_bytes", 0, "table.size_bytes is 0"),
        ("size_bytes", 2**40, "has more than 4,294,967,296 bytes"),
    ],
)
def test_what_the_manifest_says_of_the_table_is_checked(
    made: Path, tmp_path: Path, field: str, value: Any, message: str
) -> None:
    copy = tmp_path / "data"
    shutil.copytree(made / "3", copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    if field == "table":
        manifest["table"] = value
    else:
        manifest["table"][field] = value
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedDatasetError, match=re.escape(message)):
        ClipDataset(str(copy), "train")


def test_verification_finds_hashes_that_are_not_those_of_the_names(made: Path, tmp_path: Path) -> None:
    for name in ("key", "identity", "source"):
        copy = tmp_path / name
        shutil.copytree(made / "3", copy)
        changed_columns(copy, put(f"{name}_hash", 5))
        index = json.loads((copy / seeds.INDEX).read_text())
        index["columns"] |= {"sha256": hashlib.sha256((copy / COLUMNS).read_bytes()).hexdigest()}
        (copy / seeds.INDEX).write_text(json.dumps(index))
        digest = hashlib.sha256((copy / seeds.INDEX).read_bytes()).digest()
        changed_columns(copy, put("index_sha256", np.frombuffer(digest, dtype=np.uint8), 0), "shards.arrow")
        with pytest.raises(VerificationError, match=f"its hashes of {name} are not those of the names"):
            verify_dataset(str(copy))


def test_an_upgrade_is_verified_against_the_json_indexes(made: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(made / "upgraded", copy)
    changed_columns(copy, put("start_s", 77.0))
    with pytest.raises(VerificationError, match=r"its clips are not those of train/shard-000000\.json"):
        verify_dataset(str(copy))

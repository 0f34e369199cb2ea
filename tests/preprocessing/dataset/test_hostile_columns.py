"""A foreign dataset of format 3: every value of its Arrow files is checked before it is used, with one clear line."""

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.errors import UserError
from preprocessing.dataset import arrow_file
from preprocessing.dataset.errors import DamagedDatasetError
from preprocessing.dataset.reader import ClipDataset
from preprocessing.dataset.upgrade import upgrade_dataset
from preprocessing.dataset.verify_dataset import verify_dataset
from preprocessing.dataset.verify_shard import VerificationError
from tests.fuzz import seeds

COLUMNS = seeds.COLUMNS


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a small dataset in format 3, and one of format 2 that was upgraded."""
    folder = tmp_path_factory.mktemp("formats")
    seeds.write_dataset(folder / "3", 3)
    seeds.write_dataset(folder / "upgraded", 2)
    upgrade_dataset(str(folder / "upgraded"))
    return folder


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

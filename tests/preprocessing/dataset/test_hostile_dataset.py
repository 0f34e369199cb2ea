"""Every field of a foreign dataset is checked before it is used: one clear line, and no file outside is touched."""

import hashlib
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import UserError
from preprocessing.dataset import schema
from preprocessing.dataset.cache import DamagedShardError, ShardCache
from preprocessing.dataset.errors import DamagedDatasetError
from preprocessing.dataset.reader import ClipDataset
from preprocessing.dataset.verify_dataset import verify_dataset
from preprocessing.dataset.verify_shard import VerificationError
from tests.fuzz import seeds

ABSENT = object()
"""Stands for a field that is removed."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a small dataset that a test may damage."""
    seeds.write_dataset(tmp_path / "data")
    return tmp_path / "data"


def put(tree: Any, field: str, value: Any) -> None:
    """Change the field at a dotted path."""
    *parents, last = (int(part) if part.isdecimal() else part for part in field.split("."))
    for parent in parents:
        tree = tree[parent]
    if value is ABSENT:
        del tree[last]
    else:
        tree[last] = value


def change_manifest(folder: Path, field: str, value: Any) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    put(manifest, field, value)
    path.write_text(json.dumps(manifest))


def change_index(folder: Path, field: str, value: Any) -> None:
    """Change a field of the first index, whose hash in the manifest stays right."""
    index = json.loads((folder / seeds.INDEX).read_text())
    put(index, field, value)
    (folder / seeds.INDEX).write_text(json.dumps(index))
    rehash(folder)


def rehash(folder: Path) -> None:
    change_manifest(folder, "shards.0.index_sha256", hashlib.sha256((folder / seeds.INDEX).read_bytes()).hexdigest())


def refusal(folder: Path) -> str:
    """Return the error of a reader, one printable line that names the file."""
    with pytest.raises(DamagedDatasetError) as raised:
        ClipDataset(str(folder), "train")
    assert str(raised.value).isprintable()
    return str(raised.value).removeprefix(f"{folder}/").partition("; delete any damaged copy")[0]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("vocabulary", ABSENT, "manifest.json: has no `vocabulary`"),
        ("splits", ABSENT, "manifest.json: has no `splits`"),
        ("shards", ABSENT, "manifest.json: has no `shards`"),
        ("shards", {}, "manifest.json: shards is an object; it must be a list"),
        ("shards.0", None, "manifest.json: shards[0] is null; it must be an object"),
        ("shards.0.path", ABSENT, "manifest.json: shards[0] has no `path`"),
        ("shards.0.path", "/etc/passwd", '"/etc/passwd"; it must be a relative path inside the dataset'),
        ("shards.0.path", "../other/a.tar", "shards[0].path is"),
        ("shards.0.path", "train/../../a.tar", "shards[0].path is"),
        ("shards.0.path", "train//a.tar", "shards[0].path is"),
        ("shards.0.path", "", 'shards[0].path is ""'),
        ("shards.0.path", "train\\..\\a.tar", "shards[0].path is"),
        ("shards.0.path", "train/a\0.tar", "shards[0].path is"),
        ("shards.0.path", "s3://bucket/a.tar", "shards[0].path is"),
        ("shards.0.path", "x" * 300, "shards[0].path is"),
        ("shards.0.index", "../a.json", "shards[0].index is"),
        ("shards.0.sha256", "/srv/project/uv", 'is "/srv/project/uv"; it must be 64 hexadecimal digits'),
        ("shards.0.sha256", "A" * 64, "shards[0].sha256 is"),
        ("shards.0.sha256", "0" * 64 + "\n", "shards[0].sha256 is"),
        ("shards.0.index_sha256", 5, "shards[0].index_sha256 is 5; it must be a string"),
        ("shards.0.size_bytes", -1, "shards[0].size_bytes is -1; it must be from 1 to"),
        ("shards.0.size_bytes", 0, "shards[0].size_bytes is 0; it must be from 1 to"),
        ("shards.0.size_bytes", 1e13, "shards[0].size_bytes is 10000000000000.0; it must be an integer"),
        ("shards.0.size_bytes", 10**30, "shards[0].size_bytes is 1000"),
        ("shards.0.size_bytes", True, "shards[0].size_bytes is true; it must be an integer"),
        ("shards.0.size_bytes", 10**13, "it has 10240 bytes, but the manifest says 10000000000000"),
        ("shards.0.clips", 10**13, "lists 4 clips, but the manifest says 10000000000000"),
        ("shards.0.split", "other", "shards[0].split is other, which is no split"),
        ("vocabulary.hat", [1], "vocabulary.hat[0] is 1; it must be a string"),
        ("vocabulary.hat", [], "gives clip i0-0 no label hat from the vocabulary"),
        ("vocabulary.shoe", ["none"], "gives clip i0-0 no label shoe from the vocabulary"),
        ("factors.weight", "pixel", 'factors.weight is "pixel"; it must be clip or frame'),
        ("factors.weight", "frame", "gives clip i0-0 no value of weight for each frame"),
        ("factors.height", "clip", "gives clip i0-0 no value of height for each clip"),
        ("clip_shape", [2, 3, 4], "clip_shape is a list; it must be of length 4"),
        ("splits.train.clips", -3, "splits.train.clips is -3"),
        ("rejects.path", "/dev/zero", "rejects.path is"),
    ],
)  # fmt: skip
def test_a_field_of_the_manifest_is_checked(folder: Path, field: str, value: Any, message: str) -> None:
    change_manifest(folder, field, value)
    assert message in refusal(folder)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("samples", ABSENT, "has no `samples`"),
        ("samples.1", [], "samples[1] is a list; it must be an object"),
        ("samples.1.key", ABSENT, "samples[1] has no `key`"),
        ("samples.1.key", "../a", "samples[1].key is \"../a\"; it must be letters, digits, _ and - only"),
        ("samples.1.identity", "\ud800", 'samples[1].identity is "\\ud800"; it must be valid Unicode text'),
        ("samples.1.shape", [2, 3, 4], "samples[1].shape is a list; it must be of length 4"),
        ("samples.1.shape.0", 0, "samples[1].shape[0] is 0; it must be from 1 to"),
        ("samples.1.shape.0", 10**13, "samples[1].shape[0] is 10000000000000; it must be from 1 to"),
        ("samples.1.shape.0", 900, "gives clip i0-1 152 bytes for [900, 3, 4, 1] values"),
        ("samples.1.frames_length", 10**13, "gives clip i0-1 10000000000000 bytes for [2, 3, 4, 1] values"),
        ("samples.1.frames_offset", 10**13, "puts clip i0-1 after the end of its shard, which has 10240 bytes"),
        ("samples.1.frames_offset", -1, "samples[1].frames_offset is -1"),
        ("samples.1.frames_crc32", 2**32, "samples[1].frames_crc32 is 4294967296"),
        ("samples.1.fps", 0, "gives clip i0-1 0 frames per second"),
        ("samples.1.fps", "25", 'samples[1].fps is "25"; it must be a finite number'),
        ("samples.1.start_s", 10**400, "samples[1].start_s is 1000"),
        ("samples.1.labels", ABSENT, "samples[1] has no `labels`"),
        ("samples.1.labels.hat", 2, "gives clip i0-1 no label hat from the vocabulary"),
        ("samples.1.labels.hat", ABSENT, "gives clip i0-1 no label hat from the vocabulary"),
        ("samples.1.labels.hat", None, "samples[1].labels.hat is null; it must be float or int or list"),
        ("samples.1.labels.angle", [0.5], "gives clip i0-1 no value of angle for each frame"),
        ("samples.1.labels.angle", [0.5, "x"], 'samples[1].labels.angle[1] is "x"; it must be a finite number'),
    ],
)  # fmt: skip
def test_a_field_of_an_index_is_checked(folder: Path, field: str, value: Any, message: str) -> None:
    change_index(folder, field, value)
    assert f"{seeds.INDEX}: {message}" in refusal(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[" * 10**6, "is nested too deeply"),
        (b'{"a":' * 10**6, "is nested too deeply"),
        (b"\xff", "is not UTF-8 text"),
        (b"{", "is not JSON"),
        (b'{"samples": NaN}', "is not JSON"),
        (b'{"samples": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"[]", "is a list; it must be an object"),
    ],
)
def test_an_index_that_is_no_json_object_is_one_line(folder: Path, text: bytes, message: str) -> None:
    (folder / seeds.INDEX).write_bytes(text)
    rehash(folder)
    assert f"{seeds.INDEX}: {message}" in refusal(folder).replace(":  ", ": ")


@pytest.mark.parametrize(
    "text", [b"[" * 10**6, b"\xff", b"[]", b"5", b'{"schema_version": true}', b'{"schema_version": []}']
)
def test_what_is_no_manifest_is_one_line(folder: Path, text: bytes) -> None:
    (folder / "manifest.json").write_bytes(text)
    with pytest.raises(UserError, match="is not the manifest of a dataset"):
        ClipDataset(str(folder), "train")


def test_files_above_the_limit_are_not_parsed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "MAX_BYTES", (folder / seeds.INDEX).stat().st_size - 1)
    with pytest.raises(UserError, match=r"is not the manifest|has more than"):
        ClipDataset(str(folder), "train")


@pytest.mark.parametrize("name", ["manifest.json", seeds.INDEX, seeds.SHARD])
def test_a_pipe_in_the_place_of_a_file_does_not_stop_the_reader(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(UserError, match=f"{name}: (not a regular file|it has 0 bytes)"):
        ClipDataset(str(folder), "train")


def test_settings_of_the_source_may_not_be_nested_without_end(folder: Path) -> None:
    deep: list[Any] = []
    for _ in range(schema.MAX_DEPTH):
        deep = [deep]
    change_manifest(folder, "configuration.source.deep", deep)
    assert "configuration.source" in refusal(folder)


def test_frames_of_another_size_than_the_manifest_says_are_damage(folder: Path) -> None:
    change_manifest(folder, "clip_shape", [2, 8, 8, 1])
    dataset = ClipDataset(str(folder), "train")
    with pytest.raises(DamagedDatasetError, match="clip i0-0 has frames of 3x4x1, but the manifest says 8x8x1"):
        dataset.frames(0)


@pytest.mark.parametrize("field", ["clip_shape", "configuration"])
def test_a_manifest_without_what_only_some_need_is_refused_where_it_is_needed(folder: Path, field: str) -> None:
    change_manifest(folder, field, ABSENT)
    dataset = ClipDataset(str(folder), "train")
    dataset.frames(0)
    with pytest.raises(DamagedDatasetError, match=r"manifest.json: it does not (give the size|name the source)"):
        dataset.frame_shape if field == "clip_shape" else dataset.source  # noqa: B018
    with pytest.raises(DamagedDatasetError, match=f"manifest.json: has no `{field}`"):
        verify_dataset(str(folder))


@pytest.mark.parametrize("value", ["", 5, ABSENT])
def test_a_source_without_a_name_is_refused_where_it_is_needed(folder: Path, value: Any) -> None:
    change_manifest(folder, "configuration.source.name", value)
    with pytest.raises(DamagedDatasetError, match="it does not name the source of the clips"):
        ClipDataset(str(folder), "train").source  # noqa: B018


def test_the_first_version_of_the_format_is_still_read(folder: Path) -> None:
    expected = ClipDataset(str(folder), "train").frames(1)
    (folder / "manifest.json").write_bytes(seeds.first_version(folder))
    dataset = ClipDataset(str(folder), "train")
    assert (dataset.frames(1) == expected).all()
    assert dataset.factors == {}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("statistics", ABSENT, "has no `statistics`"),
        ("statistics.pixels.count", 0, "statistics.pixels are those of no frames"),
        ("statistics.pixels.sum_squares", [0], "statistics.pixels have a negative variance"),
        ("statistics.pixels.sum", [], "statistics.pixels are those of no frames"),
        ("statistics.labels.hat", {"7": 1}, "statistics.labels.hat has a value that is not in the vocabulary"),
        ("statistics.labels.hat", {"one": 1}, "it must be a decimal number"),
        ("statistics.labels", {}, "statistics.labels are "),
        ("statistics.factors.weight", [0, 0, 0, 0], "statistics.factors count no values"),
        ("statistics.lengths", {"": 1}, "it must be a decimal number"),
        ("statistics.sizes", [[1]], "statistics.sizes[0] is a list; it must be of length 3"),
    ],
)
def test_counts_are_checked_before_they_are_added(folder: Path, field: str, value: Any, message: str) -> None:
    change_index(folder, field, value)
    with pytest.raises((VerificationError, DamagedDatasetError), match=re.escape(message)):
        verify_dataset(str(folder))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("plan.json", "[]", "plan.json"),
        ("inputs.jsonl", "5\n", "inputs.jsonl: it is not a list of inputs"),
        ("inputs.jsonl", '["a"]\n', "inputs.jsonl: it is not a list of inputs"),
        ("inputs.jsonl", '[["a"], "b", "train", {}, 1, "d", "v"]\n', "inputs.jsonl: it is not a list of inputs"),
        ("inputs.jsonl", "[" * 10**5 + "\n", "inputs.jsonl: it is not a list of inputs"),
    ],
)
def test_other_files_are_checked_too(folder: Path, name: str, text: str, message: str) -> None:
    (folder / name).write_text(text)
    change_manifest(folder, "plan_sha256", hashlib.sha256((folder / "plan.json").read_bytes()).hexdigest())
    with pytest.raises(VerificationError, match=re.escape(message)):
        verify_dataset(str(folder))


def test_the_cache_never_makes_a_path_of_what_is_no_hash(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    victims = {name: project / name for name in ("uv.lock", "uv.tar", "uv.unchecked")}
    for victim in victims.values():
        victim.write_text("precious")
    cache = ShardCache(tmp_path / "cache", 10**9)
    for sha256 in (str(project / "uv"), "../../project/uv", "", ".", "0" * 63, "0" * 64 + "/../../project/uv", None):
        shard: Any = {"path": "train/shard-000000.tar", "sha256": sha256, "size_bytes": 8}
        for use in (cache.open, cache.prepare):
            with pytest.raises(DamagedShardError, match="its SHA-256 in the manifest is not a hash"):
                use(str(tmp_path), shard)
        with pytest.raises(DamagedShardError):
            cache.discard(shard)
    assert {name: path.read_text() for name, path in victims.items()} == dict.fromkeys(victims, "precious")
    assert list((tmp_path / "cache").rglob("*.*")) == []


def test_numbers_of_a_check_are_exact_at_their_bounds() -> None:
    schema.check(2**63 - 1, int)
    schema.check(-1.5, float)
    for value, kind in ((2**63, int), (math.inf, float), (10**400, float), (True, int), ("1", int), (1, str)):
        with pytest.raises(schema.SchemaError):
            schema.check(value, kind)

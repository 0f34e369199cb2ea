"""Descriptors come from the dataset, or are computed once per shard."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.storage import api as storage
from preprocessing.appearance import stored
from preprocessing.appearance.descriptors import SIZE, Name, describe, from_npy, to_npy
from preprocessing.appearance.mining import MiningSettings
from preprocessing.appearance.search import find_pairs
from preprocessing.appearance.stored import read_descriptors
from preprocessing.dataset.errors import DamagedDatasetError
from preprocessing.dataset.reader import ClipDataset

SETTINGS = MiningSettings(neighbours=3, mutual=True, max_distance=None)


@pytest.fixture
def copy(small_figures: Path, tmp_path: Path) -> Path:
    """Return a copy that a test may damage."""
    return Path(shutil.copytree(small_figures, tmp_path / "copy"))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[Name]:
    """Return a list that has an entry for each descriptor that is computed."""
    names: list[Name] = []
    monkeypatch.setattr(stored, "describe", lambda name, frames: names.append(name) or describe(name, frames))  # type: ignore[func-returns-value]
    return names


def change_indexes(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Change the index of every shard, and the hashes in the manifest."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for entry in manifest["shards"]:
        index = json.loads((folder / entry["index"]).read_text())
        change(index)
        (folder / entry["index"]).write_text(json.dumps(index))
        entry["index_sha256"] = hashlib.sha256((folder / entry["index"]).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def without_appearance(folder: Path) -> Path:
    """Turn a dataset into one of an earlier version."""
    shutil.rmtree(folder / "appearance")
    return change_indexes(folder, lambda index: index.pop("appearance"))


def expected(clips: ClipDataset, name: Name) -> Any:
    return np.stack([describe(name, clips.frames(index)) for index in range(len(clips))])


def open_split(url: Path | str, split: str = "train") -> ClipDataset:
    return ClipDataset(str(url), split)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_dataset_holds_the_descriptors_of_its_clips(
    small_figures: Path, tmp_path: Path, computed: list[Name], split: str
) -> None:
    clips, read = open_split(small_figures, split), []
    found = read_descriptors(clips, "colour", tmp_path / "cache", read.append)
    assert not computed
    assert not (tmp_path / "cache").exists()
    assert found.dtype == np.int16
    assert np.array_equal(found, expected(clips, "colour"))
    assert read == [shard["clips"] for shard in clips.shards]


def test_the_index_names_the_descriptors_and_their_hash(small_figures: Path) -> None:
    for entry in open_split(small_figures).shards:
        appearance = json.loads((small_figures / entry["index"]).read_text())["appearance"]
        data = (small_figures / appearance["path"]).read_bytes()
        assert appearance == {
            "name": "colour",
            "version": 1,
            "path": f"appearance/{entry['path'].removesuffix('.tar')}.npy",
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        assert from_npy(data, entry["clips"]).any()


def test_s3_and_a_folder_hold_the_same(
    small_figures: Path, s3_bucket: str, tmp_path: Path, computed: list[Name]
) -> None:
    for path in small_figures.rglob("*"):
        if path.is_file():
            storage.write_bytes(f"{s3_bucket}/data/{path.relative_to(small_figures)}", path.read_bytes())
    here, there = open_split(small_figures), ClipDataset(f"{s3_bucket}/data", "train", tmp_path / "clips")
    assert np.array_equal(
        read_descriptors(here, "colour", tmp_path / "a"), read_descriptors(there, "colour", tmp_path / "b")
    )
    assert not computed
    pairs = find_pairs(here, "colour", SETTINGS, tmp_path / "a").to_bytes()
    assert find_pairs(there, "colour", SETTINGS, tmp_path / "b").to_bytes() == pairs
    # Textures are not stored: they are computed from the frames of either.
    textures = [read_descriptors(one, "texture", tmp_path / str(one.url == here.url)) for one in (here, there)]
    assert len(computed) == 2 * len(here)
    assert np.array_equal(*textures)


def other_version(index: dict[str, Any]) -> None:
    index["appearance"]["version"] += 1


@pytest.mark.parametrize("older", [without_appearance, lambda folder: change_indexes(folder, other_version)])
def test_what_a_dataset_does_not_hold_is_computed_once(
    copy: Path, tmp_path: Path, computed: list[Name], older: Callable[[Path], Path]
) -> None:
    clips = open_split(older(copy))
    first = read_descriptors(clips, "colour", tmp_path / "cache")
    assert len(computed) == len(clips)
    assert np.array_equal(first, expected(clips, "colour"))
    assert np.array_equal(read_descriptors(clips, "colour", tmp_path / "cache"), first)
    assert len(computed) == len(clips)


def test_each_descriptor_is_cached_on_its_own(small_figures: Path, tmp_path: Path, computed: list[Name]) -> None:
    clips = open_split(small_figures)
    textures = read_descriptors(clips, "texture", tmp_path)
    assert computed == ["texture"] * len(clips)
    colours = read_descriptors(clips, "colour", tmp_path)
    assert not np.array_equal(textures, colours)
    assert np.array_equal(textures, expected(clips, "texture"))


def test_an_interrupted_computation_continues_with_the_shard_it_was_at(
    copy: Path, tmp_path: Path, computed: list[Name], monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = open_split(without_appearance(copy))
    sizes = [shard["clips"] for shard in clips.shards]
    assert len(sizes) > 2

    def interrupt(name: Name, frames: Any) -> Any:
        if len(computed) == sizes[0] + sizes[1] + 2:
            raise KeyboardInterrupt
        computed.append(name)
        return describe(name, frames)

    with monkeypatch.context() as patch:
        patch.setattr(stored, "describe", interrupt)
        with pytest.raises(KeyboardInterrupt):
            read_descriptors(clips, "colour", tmp_path / "cache")
    computed.clear()
    found = read_descriptors(clips, "colour", tmp_path / "cache")
    assert len(computed) == sum(sizes[2:])
    assert np.array_equal(found, expected(clips, "colour"))


SLOWLY = """
import pathlib, sys, time
from preprocessing.appearance import stored
from preprocessing.dataset.reader import ClipDataset

describe = stored.describe
stored.describe = lambda name, frames: time.sleep(0.05) or describe(name, frames)
stored.read_descriptors(ClipDataset(sys.argv[1], "train"), "colour", pathlib.Path(sys.argv[2]))
"""


def test_a_computation_that_was_killed_ends_as_one_that_was_not(copy: Path, tmp_path: Path) -> None:
    clips = open_split(without_appearance(copy))
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, str(copy), str(killed)])
    try:
        deadline = time.monotonic() + 120
        while not list(killed.rglob("*.npy")) and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    assert 0 < len(list(killed.rglob("*.npy"))) < len(clips.shards)
    found, whole = (read_descriptors(clips, "colour", cache) for cache in (killed, undisturbed))
    assert np.array_equal(found, whole)
    finished = [{path.name: path.read_bytes() for path in cache.rglob("*.npy")} for cache in (killed, undisturbed)]
    assert finished[0] == finished[1]


@pytest.mark.parametrize("content", [lambda data: data[:-9], lambda data: data[:20], lambda _: b"", lambda d: d + b"x"])
def test_a_damaged_cache_is_computed_again(
    copy: Path, tmp_path: Path, computed: list[Name], content: Callable[[bytes], bytes]
) -> None:
    clips = open_split(without_appearance(copy))
    whole = read_descriptors(clips, "colour", tmp_path / "cache")
    computed.clear()
    file = tmp_path / "cache" / "appearance" / "colour-1" / f"{clips.shards[1]['sha256']}.npy"
    good = file.read_bytes()
    file.write_bytes(content(good))
    assert np.array_equal(read_descriptors(clips, "colour", tmp_path / "cache"), whole)
    assert len(computed) == clips.shards[1]["clips"]
    assert file.read_bytes() == good


@pytest.mark.parametrize(
    ("damage", "problem"),
    [("missing", "it is missing"), ("changed", "SHA-256"), ("cut short", "SHA-256"), ("of other clips", "hold")],
)
def test_a_damaged_file_of_the_dataset_is_named(copy: Path, tmp_path: Path, damage: str, problem: str) -> None:
    clips = open_split(copy)
    path = copy / "appearance" / "train" / "shard-000001.npy"
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "of other clips":
        fewer = to_npy(np.ones((2, SIZE), dtype=np.int16))
        path.write_bytes(fewer)

        def rehash(index: dict[str, Any]) -> None:
            if index["shard"] == "train/shard-000001.tar":
                index["appearance"]["sha256"] = hashlib.sha256(fewer).hexdigest()

        clips = open_split(change_indexes(copy, rehash))
    else:
        path.write_bytes(data[:-2] if damage == "cut short" else data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DamagedDatasetError) as error:
        read_descriptors(clips, "colour", tmp_path / "cache")
    assert f"{path}: " in str(error.value)
    assert problem in str(error.value)
    assert len(str(error.value).splitlines()) == 1

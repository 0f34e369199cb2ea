"""`vdsm verify` and the files with what clips look like: every change is found and the file named."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocessing.dataset.errors import DamagedDatasetError
from preprocessing.dataset.verify_dataset import verify_dataset
from preprocessing.dataset.verify_shard import VerificationError

FILE = "appearance/train/shard-000001.npy"


@pytest.fixture
def copy(small_figures: Path, tmp_path: Path) -> Path:
    """Return a copy that a test may damage."""
    return Path(shutil.copytree(small_figures, tmp_path / "copy"))


def change_index(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the index of the shard, and its hash in the manifest."""
    index, manifest = folder / "train" / "shard-000001.json", json.loads((folder / "manifest.json").read_text())
    content = json.loads(index.read_text())
    change(content)
    index.write_text(json.dumps(content))
    (entry,) = (shard for shard in manifest["shards"] if shard["index"] == "train/shard-000001.json")
    entry["index_sha256"] = hashlib.sha256(index.read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def replace(folder: Path, content: bytes) -> None:
    """Replace the file, and its hash in the index and the manifest, so that only its content reveals it."""
    (folder / FILE).write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    change_index(folder, lambda index: index["appearance"].update(sha256=sha256))


def problem(folder: Path) -> str:
    with pytest.raises((VerificationError, DamagedDatasetError)) as error:
        verify_dataset(str(folder))
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def npy(folder: Path, array: Any) -> bytes:
    np.save(folder.parent / "other.npy", array)
    return (folder.parent / "other.npy").read_bytes()


def test_the_files_of_a_good_dataset_and_of_an_earlier_version_pass(copy: Path) -> None:
    verify_dataset(str(copy))
    (copy / FILE).unlink()
    change_index(copy, lambda index: index.pop("appearance"))
    verify_dataset(str(copy))


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / FILE).unlink()
    assert problem(copy) == f"{FILE}: it is missing"


@pytest.mark.parametrize("offset", [0, 60, 200, -1])
def test_a_flipped_bit_is_found(copy: Path, offset: int) -> None:
    data = bytearray((copy / FILE).read_bytes())
    data[offset] ^= 1
    (copy / FILE).write_bytes(data)
    assert problem(copy) == f"{FILE}: its SHA-256 does not match the index of its shard"


@pytest.mark.parametrize("change", [lambda data: data[:-2], lambda data: data + b"\0\0"])
def test_a_file_of_another_length_is_found(copy: Path, change: Callable[[bytes], bytes]) -> None:
    changed = change((copy / FILE).read_bytes())
    (copy / FILE).write_bytes(changed)
    assert "SHA-256" in problem(copy)
    replace(copy, changed)
    assert f"{FILE}: it has {len(changed)} bytes" in problem(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda array: array[1:],
        lambda array: np.concatenate([array, array[:1]]),
        lambda array: array.ravel(),
        lambda array: array[None],
        lambda array: array.astype(np.float32),
        lambda array: array.astype(">i2"),
    ],
    ids=["fewer", "more", "flat", "deep", "floats", "big-endian"],
)
def test_descriptors_that_are_not_one_for_each_clip_are_found(copy: Path, change: Callable[[Any], Any]) -> None:
    replace(copy, npy(copy, change(np.load(copy / FILE))))
    assert f"{FILE}: descriptors are " in problem(copy)


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\x01\x00"])
def test_a_file_that_is_no_npy_is_found(copy: Path, content: bytes) -> None:
    replace(copy, content)
    assert f"{FILE}: it is not a .npy" in problem(copy)


def test_the_file_of_another_shard_is_found(copy: Path) -> None:
    other = copy / "appearance" / "train" / "shard-000000.npy"
    entry = {"path": "appearance/train/shard-000000.npy", "sha256": hashlib.sha256(other.read_bytes()).hexdigest()}
    change_index(copy, lambda index: index["appearance"].update(entry))
    assert "appearance/train/shard-000000.npy: it holds the descriptors of another shard" in problem(copy)


@pytest.mark.parametrize("name", ["appearance/train/shard-000099.npy", "appearance/test/x", "appearance/more.npy"])
def test_a_surplus_file_is_named(copy: Path, name: str) -> None:
    (copy / name).write_bytes(b"")
    assert problem(copy) == f"{name}: the manifest does not list this file"


def test_a_file_that_no_index_names_is_found(copy: Path) -> None:
    change_index(copy, lambda index: index.pop("appearance"))
    assert problem(copy) == f"{FILE}: the index of its shard does not name this file"


@pytest.mark.parametrize(
    "change",
    [
        {"name": 1},
        {"version": -1},
        {"version": "1"},
        {"path": "../outside.npy"},
        {"path": "/root.npy"},
        {"sha256": "0"},
    ],
)
def test_an_entry_that_is_not_as_declared_is_found(copy: Path, change: dict[str, Any]) -> None:
    change_index(copy, lambda index: index["appearance"].update(change))
    assert "train/shard-000001.json" in problem(copy)


@pytest.mark.parametrize("key", ["name", "version", "path", "sha256"])
def test_an_entry_that_is_incomplete_is_found(copy: Path, key: str) -> None:
    change_index(copy, lambda index: index["appearance"].pop(key))
    assert "train/shard-000001.json" in problem(copy)

"""Embeddings of a user's own: what is wrong with a file is said in one line, before anything is trained."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.errors import UserError
from preprocessing.appearance.stored import read_embeddings
from preprocessing.sources import array_file

KEYS = ["a", "b", "c"]
VALUES = np.arange(12, dtype=np.float64).reshape(3, 4)


def embeddings(folder: Path, **arrays: Any) -> str:
    path = folder / "own.npz"
    np.savez(path, allow_pickle=True, **arrays)
    return str(path)


def test_embeddings_are_found_by_key_and_further_ones_ignored(tmp_path: Path) -> None:
    url = embeddings(tmp_path, keys=np.array(KEYS), descriptors=VALUES, more=np.zeros(2))
    assert read_embeddings(url, ["c", "a"]).tolist() == VALUES[[2, 0]].tolist()
    useless = VALUES.copy()
    useless[1] = np.nan
    url = embeddings(tmp_path, keys=np.array(KEYS), descriptors=useless)
    assert read_embeddings(url, ["c", "a"]).tolist() == VALUES[[2, 0]].tolist()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int64, np.uint8])
def test_embeddings_may_be_of_any_type_of_number(tmp_path: Path, dtype: Any) -> None:
    url = embeddings(tmp_path, keys=np.array(KEYS), descriptors=VALUES.astype(dtype))
    found = read_embeddings(url, KEYS)
    assert found.dtype == np.float64
    assert found.tolist() == VALUES.tolist()


def with_value(value: float) -> Any:
    changed = VALUES.copy()
    changed[1, 2] = value
    return changed


BAD: list[tuple[dict[str, Any], str]] = [
    ({"descriptors": VALUES}, "no array .*keys"),
    ({"keys": np.array(KEYS)}, "no array .*descriptors"),
    ({}, "no array"),
    ({"keys": np.array(KEYS[:2]), "descriptors": VALUES[:2]}, r"no descriptor of clip c \(1 of 3 clips lack one\)"),
    ({"keys": np.array(["x", "y", "z"]), "descriptors": VALUES}, r"no descriptor of clip a \(3 of 3"),
    ({"keys": np.array([*KEYS, "a"]), "descriptors": np.ones((4, 4))}, "names a clip twice"),
    ({"keys": np.array(KEYS), "descriptors": with_value(np.nan)}, "descriptor of clip b has values that are not"),
    ({"keys": np.array(KEYS), "descriptors": with_value(np.inf)}, "descriptor of clip b has values that are not"),
    ({"keys": np.array(KEYS), "descriptors": VALUES[:2]}, r"keys has shape \(3,\) and descriptors \(2, 4\)"),
    ({"keys": np.array(KEYS), "descriptors": VALUES[:, 0]}, "they must be"),
    ({"keys": np.array(KEYS), "descriptors": VALUES[None]}, "they must be"),
    ({"keys": np.array(KEYS), "descriptors": VALUES[:, :0]}, "they must be"),
    ({"keys": np.array(KEYS), "descriptors": np.array(1.0)}, "they must be"),
    ({"keys": np.array("a"), "descriptors": VALUES}, "they must be"),
    ({"keys": np.array([KEYS]), "descriptors": VALUES}, "they must be"),
    ({"keys": np.arange(3), "descriptors": VALUES}, "keys has type int64; it must be text"),
    ({"keys": np.array(KEYS).astype(bytes), "descriptors": VALUES}, "it must be text"),
    ({"keys": np.array(KEYS), "descriptors": VALUES.astype(str)}, "it must be numbers"),
    ({"keys": np.array(KEYS), "descriptors": VALUES + 1j}, "it must be numbers"),
    ({"keys": np.array(KEYS), "descriptors": VALUES > 2}, "it must be numbers"),
    ({"keys": np.array(KEYS, dtype=object), "descriptors": VALUES}, "is not an .npz of keys and descriptors"),
    ({"keys": np.array(KEYS), "descriptors": VALUES.astype(object)}, "is not an .npz of keys and descriptors"),
]


def one_line(url: str, match: str) -> None:
    with pytest.raises(UserError, match=match) as error:
        read_embeddings(url, KEYS)
    assert str(error.value).startswith(url)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(("arrays", "match"), BAD)
def test_bad_embeddings_are_one_line(tmp_path: Path, arrays: dict[str, Any], match: str) -> None:
    one_line(embeddings(tmp_path, **arrays), match)


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, VALUES)
    return buffer.getvalue()


@pytest.mark.parametrize("content", [b"", b"text\nof two lines", b"PK\x03\x04" + bytes(40), npy()])
def test_a_file_that_is_no_npz_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "own.npz"
    path.write_bytes(content)
    one_line(str(path), "is not an .npz of keys and descriptors")


def test_an_npz_that_would_unpack_to_far_more_bytes_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(array_file, "FREE_BYTES", 1000)
    path = tmp_path / "own.npz"
    np.savez_compressed(path, keys=np.array(KEYS), descriptors=np.zeros((3, 100_000)))
    one_line(str(path), "would unpack to")


def test_an_npz_that_is_cut_short_is_one_line(tmp_path: Path) -> None:
    path = Path(embeddings(tmp_path, keys=np.array(KEYS), descriptors=VALUES))
    path.write_bytes(path.read_bytes()[:-40])
    one_line(str(path), "is not an .npz of keys and descriptors")


def test_embeddings_that_do_not_exist_are_one_line(tmp_path: Path) -> None:
    one_line(str(tmp_path / "none.npz"), "is missing; training.appearance.descriptor names it")
    (tmp_path / "folder.npz").mkdir()
    one_line(str(tmp_path / "folder.npz"), r".")

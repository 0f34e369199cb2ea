"""The descriptors of a dataset's clips: written next to its shards, or computed once and kept on this machine."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cluster.cli.paths import expand_home
from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from preprocessing.appearance.descriptors import SIZE, VERSION, Descriptors, Name, describe, from_npy, to_npy
from preprocessing.dataset.cache import cache_folder
from preprocessing.dataset.errors import HASH_MISMATCH, damaged_file
from preprocessing.dataset.format import Appearance, ShardEntry
from preprocessing.dataset.index import read_header
from preprocessing.dataset.reader import ClipDataset
from preprocessing.sources.array_file import ArrayFile, DamagedArrayError, PythonObjectsError


def read_descriptors(
    clips: ClipDataset, name: Name, cache: Path | None = None, on_read: Callable[[int], None] | None = None
) -> Descriptors:
    """Return a descriptor of every clip of a split, [N, SIZE], in the order of its clips.

    Those that the dataset does not hold are computed, shard by shard, and kept in a local cache by the hash of the
    shard, so an interrupted computation continues where it stopped.

    Args:
        clips: the clips of the split.
        name: the descriptor.
        cache: folder of the cache, by default that of the shards.
        on_read: called with the number of clips after each shard.

    Raises:
        DamagedDatasetError: a file of the dataset was changed.
    """
    folder = (cache or cache_folder()) / "appearance" / f"{name}-{VERSION}"
    parts = [np.zeros((0, SIZE), dtype=np.int16)]
    owners = np.asarray(clips.clip_shards)
    for number, shard in enumerate(clips.shards):
        members = np.flatnonzero(owners == number)
        found = _stored(clips.url, shard, name)
        if found is None:
            found = _cached(folder / f"{shard['sha256']}.npy", len(members))
        if found is None:
            found = np.stack([describe(name, clips.frames(int(index))) for index in members])
            storage.write_bytes(str(folder / f"{shard['sha256']}.npy"), to_npy(found))
        parts.append(found)
        if on_read is not None:
            on_read(len(members))
    return np.concatenate(parts)


def _stored(url: str, shard: ShardEntry, name: Name) -> Descriptors | None:
    """Return the descriptors that the dataset holds of a shard's clips, if they are of this kind and version."""
    entry: Appearance | None = read_header(url, shard).get("appearance")
    if entry is None or (entry["name"], entry["version"]) != (name, VERSION):
        return None
    try:
        data = storage.read_bytes(storage.join(url, entry["path"]))
    except MissingFileError:
        raise damaged_file(url, entry["path"], "it is missing") from None
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise damaged_file(url, entry["path"], HASH_MISMATCH)
    try:
        return from_npy(data, shard["clips"])
    except ValueError as error:
        raise damaged_file(url, entry["path"], str(error)) from None


def _cached(path: Path, clips: int) -> Descriptors | None:
    try:
        return from_npy(path.read_bytes(), clips)
    except (OSError, ValueError):  # absent, or cut short: computed again
        return None


def read_embeddings(url: str, keys: list[str]) -> NDArray[np.float64]:
    """Return a user's own embeddings of the clips with the given keys, [N, D].

    Args:
        url: an .npz with `keys` [M], text, and `descriptors` [M, D], numbers; further clips are ignored.
        keys: keys of the clips.

    Raises:
        UserError: the file is missing or something else, or it lacks a clip.
    """
    url = expand_home(url)
    found, values = _read_npz(url)
    if values.ndim != 2 or found.ndim != 1 or len(found) != len(values) or not values.shape[1]:
        raise UserError(
            f"{url}: keys has shape {found.shape} and descriptors {values.shape}; they must be [N] and [N, D]"
        )
    if found.dtype.kind != "U":
        raise UserError(f"{url}: keys has type {found.dtype}; it must be text")
    if values.dtype.kind not in "fiu":
        raise UserError(f"{url}: descriptors has type {values.dtype}; it must be numbers")
    rows = {key: row for row, key in enumerate(found.tolist())}
    missing = [key for key in keys if key not in rows]
    if missing:
        raise UserError(f"{url}: no descriptor of clip {missing[0]} ({len(missing):,} of {len(keys):,} clips lack one)")
    if len(rows) < len(found):
        raise UserError(f"{url}: keys names a clip twice")
    chosen = values[[rows[key] for key in keys]].astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(chosen).all(axis=1))
    if len(bad):
        raise UserError(f"{url}: the descriptor of clip {keys[bad[0]]} has values that are not finite")
    return chosen


def _read_npz(url: str) -> tuple[NDArray[np.str_], NDArray[np.floating]]:
    names = ("keys", "descriptors")
    try:
        file = ArrayFile(url)
        if "" in file.headers:
            raise DamagedArrayError("it is a .npy")
        missing = [name for name in names if name not in file.headers]
        if missing:
            raise UserError(f"{url}: no array {missing[0]}; it needs keys and descriptors")
        for name in names:
            file.verify(name)
        keys, descriptors = map(file.array, names)
    except MissingFileError:
        raise UserError(f"{url} is missing; training.appearance.descriptor names it") from None
    except (DamagedArrayError, PythonObjectsError) as damage:
        raise UserError(f"{url} is not an .npz of keys and descriptors ({damage!s:.300})") from None
    return keys, descriptors

"""Which clips a run on data of format 3 holds out: found once, kept in its folder, mapped by the ranks of a machine."""

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError, StorageError
from pipeline.recipe import Recipe
from pipeline.training.held_out import MAX_BYTES, HeldOut, Unit, find_held_out
from pipeline.training.job import can_be_sharded
from preprocessing.dataset.arrow_file import map_file
from preprocessing.dataset.cache import cache_folder
from preprocessing.dataset.reader import ClipDataset
from preprocessing.dataset.schema import SchemaError

VERSION = 1
"""Raise it when other clips are held out, or the file changes."""


def run_held_out(recipe: Recipe, clips: ClipDataset, run: str | None = None) -> HeldOut | None:
    """Return which clips are held out; None if the order of the run reads all clips anyway.

    Args:
        recipe: the settings.
        clips: the training split.
        run: folder of the run, whose file is used if it has one.

    Raises:
        ValueError: the dataset does not allow it; see `find_held_out`.
        UserError: the run's file is damaged.
    """
    if clips.mapped is None or not can_be_sharded(clips, recipe.training):
        return None
    sizes = np.diff(clips.mapped.starts)
    local = cache_folder() / "held-out" / _name(recipe, clips)
    found = _mapped(local, sizes)
    if found is not None:
        return found
    data = None if run is None else _stored(storage.join(run, local.name))
    if data is None:
        unit: Unit = "key" if recipe.training.validation_unit == "clip" else "identity"
        data = find_held_out(clips.mapped, recipe.seed, recipe.training.validation_fraction, unit)
    try:
        in_memory = HeldOut.read(data, sizes)
    except SchemaError as error:
        path = storage.join(run or "", local.name)
        raise UserError(f"{path} is damaged ({error}); delete it to find the same clips again") from None
    try:
        storage.write_bytes(str(local), data)
    except StorageError:  # a machine without a cache has a copy in each rank
        return in_memory
    return _mapped(local, sizes) or in_memory


def keep_held_out(recipe: Recipe, clips: ClipDataset, run: str) -> None:
    """Store which clips a run holds out, unless it has them. Raise as `run_held_out` does."""
    found = run_held_out(recipe, clips, run)
    if found is not None and not storage.exists(path := storage.join(run, _name(recipe, clips))):
        storage.write_bytes(path, bytes(found.data))


def _name(recipe: Recipe, clips: ClipDataset) -> str:
    """Return the name of the file, which holds a hash of everything that it depends on."""
    training = recipe.training
    chosen = [recipe.seed, training.validation_fraction, training.validation_unit]
    stated = json.dumps([VERSION, clips.manifest["table"]["sha256"], len(clips.shards), *chosen])
    return f"held-out-{hashlib.sha256(stated.encode()).hexdigest()[:16]}.arrow"


def _stored(url: str) -> bytes | None:
    try:
        return storage.read_bytes(url)
    except MissingFileError:
        return None


def _mapped(path: Path, sizes: NDArray[np.int64]) -> HeldOut | None:
    """Return the file of this machine; None if it is absent, or not intact."""
    try:
        return HeldOut.read(map_file(path, MAX_BYTES), sizes)
    except (OSError, StorageError, SchemaError):
        return None

"""The HDF5 layout of MSD-Benchmark (multi-factor sequential disentanglement), written from a dataset and read as clips.

    attribute classes   JSON: factor -> {index, type: static or dynamic, n_classes, ignore, values: {name: number}}
    data                uint8 [N, T, C, H, W]
    labels              int64 [N, F], numbers of the values, a column per factor
    {split}_indices     int64: the clips of train, val and test

A file has one label per clip and factor, so `dynamic` are labels of what happens in a clip, here the action. Identities
are not in it: whoever reads one takes clips with equal static factors for the same.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cluster.errors import UserError
from cluster.extras import require
from preprocessing.dataset.reader import ClipDataset
from preprocessing.hdf5_file import DamagedClipError, Hdf5File

ACTION = "action"
Split = Literal["train", "val", "test"]


def write_hdf5(url: str, path: Path, *, frames: int | None = None, val_fraction: float = 0.1) -> None:
    """Write both splits of a dataset to one file.

    Args:
        url: the dataset, a folder or s3://bucket/prefix.
        path: the file; it must not exist.
        frames: frames of each clip, the first ones; None means those of the shortest clip.
        val_fraction: share of the training identities, the last ones by name, whose clips are the split `val`.

    Raises:
        UserError: the data has no labels, clips are shorter than `frames`, the file exists, or h5py is not installed.
    """
    require("h5py")
    import h5py

    splits = [ClipDataset(url, "train"), ClipDataset(url, "test")]
    vocabulary = {name: list(values) for name, values in splits[0].vocabulary.items()}
    if not vocabulary:
        raise UserError(f"{url}: its clips have no labels, which the layout needs")
    shortest = min(int(count) for clips in splits for count in clips.clip_frames)
    if not 1 <= (length := shortest if frames is None else frames) <= shortest:
        raise UserError(
            f"frames is {length}; it must be from 1 to {shortest}, the length of the shortest clip of {url}"
        )
    names = sorted(set(splits[0].identities))
    held_out = set(names[len(names) - round(val_fraction * len(names)) :])
    is_val = np.array([name in held_out for name in splits[0].identities])
    numbers = {"train": np.flatnonzero(~is_val), "val": np.flatnonzero(is_val)}
    numbers["test"] = np.arange(len(splits[0]), len(splits[0]) + len(splits[1]))
    height, width, channels = splits[0].frame_shape
    total = sum(map(len, splits))
    try:
        with h5py.File(path, "x") as file:
            file.attrs["classes"] = json.dumps(_classes(vocabulary))
            shape = (total, length, channels, height, width)
            data = file.create_dataset("data", shape, np.uint8, chunks=(1, *shape[1:]), compression="gzip")
            columns = [np.concatenate([clips.labels[name] for clips in splits]) for name in vocabulary]
            file["labels"] = np.stack(columns, axis=1).astype(np.int64)
            for split, chosen in numbers.items():
                file[f"{split}_indices"] = chosen.astype(np.int64)
            row = 0
            for clips in splits:
                for index in range(len(clips)):
                    data[row] = clips.frames(index)[:length].transpose(0, 3, 1, 2)
                    row += 1
    except FileExistsError:
        raise UserError(f"{path}: exists; delete it, or choose another name") from None


def _classes(vocabulary: dict[str, list[str]]) -> dict[str, Any]:
    return {
        name: {
            "index": index,
            "type": "dynamic" if name == ACTION else "static",
            "n_classes": len(values),
            "ignore": False,
            "values": {value: number for number, value in enumerate(values)},
        }
        for index, (name, values) in enumerate(vocabulary.items())
    }


class Hdf5Clips:
    """One split of such a file, as `vdsm.evaluation` and `vdsm.data.ClipTensors` take clips.

    Args:
        path: the file. Read files of strangers only where they may do harm: HDF5's own library parses them. `vdsm
            shard` reads them in its sandbox.
        split: `train`, `val` or `test`.

    Raises:
        UserError: it is not of this layout, or h5py is not installed; the message names the part.
    """

    def __init__(self, path: Path, split: Split) -> None:
        self._file = Hdf5File(path)
        self._indices = self._file.indices(split)
        rows = self._file.labels()[self._indices]
        factors = self._file.factors
        self.vocabulary: dict[str, list[str]] = {name: factor.values for name, factor in factors.items()}
        self.labels: dict[str, NDArray[np.int64]] = {name: rows[:, factor.column] for name, factor in factors.items()}
        static = [self.labels[name] for name, factor in factors.items() if factor.static]
        self.identities: Sequence[str] = ["-".join(map(str, row)) for row in zip(*static)] if static else self.keys

    @property
    def keys(self) -> Sequence[str]:
        """Name of each clip: its number in the file."""
        return [str(number) for number in self._indices]

    @property
    def clip_frames(self) -> NDArray[np.int64]:
        """Number of frames of each clip."""
        return np.full(len(self), self._file.shape[1], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._indices)

    def frames(self, index: int) -> NDArray[np.uint8]:
        """Return the frames of one clip: uint8 [T, H, W, C].

        Raises:
            UserError: they cannot be read.
        """
        number = int(self._indices[index])
        try:
            return self._file.frames(number)
        except DamagedClipError as damage:
            raise UserError(f"{self._file.path}: clip {number} cannot be read ({damage})") from None

"""One HDF5 file in the layout of MSD-Benchmark: videos with factor labels, and their splits.

Each clip of the file is a clip here, with all its frames. Static factors become labels, and clips with the same static
factors are one identity, since the layout has no other. The dynamic factor becomes the label `action`; of several, an
action is a combination.
"""

import dataclasses
import functools
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cluster.errors import UserError
from cluster.extras import require
from cluster.storage import api as storage
from cluster.storage.errors import UnreachableError
from cluster.storage.scratch import lasting_folder
from preprocessing.clip import Clip, Factors, Item, Label, RejectedInputError, TransientError
from preprocessing.decoding.transform import FrameTransform
from preprocessing.hdf5_file import DamagedClipError, Hdf5File
from preprocessing.sources.config import Hdf5Config
from preprocessing.sources.hdf5_listing import Hdf5Listing, ListedFactor, list_hdf5
from preprocessing.sources.labels import IDENTITY, SPLIT, is_label_name
from preprocessing.sources.listing import find_inputs
from preprocessing.sources.splits import Splitter

ACTION = "action"
OURS = {"train": "train", "val": "train", "test": "test"}
"""Split of the layout -> split of a dataset, which has no third one."""


class Hdf5Source:
    """The clips of one file.

    Args:
        path: the file, local or in S3.
        config: what frames look like, and which splits are used.
        seed: seed of splits that are drawn.
    """

    untrusted = True

    def __init__(self, path: str, config: Hdf5Config, seed: int) -> None:
        self._path, self._config, self._seed = path, config, seed

    @functools.cached_property
    def vocabulary(self) -> dict[str, list[str]]:
        """Names of the values of each label, in the order of the file; the action first."""
        return {name: values for name, values, _ in self._labels}

    factors: Factors = {}  # noqa: RUF012 - there are none, ever

    def items(self) -> list[Item]:
        """Return one item per clip. The file is listed in the sandbox, without its frames."""
        listing = self._listing
        splits = self._splits()
        size = self._config.size
        height, width = (listing.height, listing.width) if size is None else (size, size)
        entry = next(find_inputs(self._path).entries())
        return [
            Item(
                key=f"clip-{number:08d}",
                split=splits[number],
                estimated_bytes=listing.frames * height * width * listing.channels,
                clips=1,
                group=self._identities[number],
                path=f"{entry.name}#{number:08d}",
                version=entry.version,
                detail=json.dumps({name: labels[number] for name, _, labels in self._labels}),
            )
            for number in sorted(splits)
        ]

    def fingerprint(self) -> str:
        """Return what all items share: nothing. A change of the file shows in their `version`."""
        return ""

    def fetch(self, item: Item, _folder: Path) -> Item:
        """Return an item of a file in S3 with the path of a copy, which is made once for all of them.

        Raises:
            TransientError: the network failed.
        """
        try:
            return dataclasses.replace(item, local=self._local) if storage.is_remote(self._path) else item
        except UnreachableError as error:
            raise TransientError(str(error)) from error

    def clips(self, item: Item) -> Iterator[Clip]:
        """Yield the one clip of an item."""
        number = int(item.path.rpartition("#")[2])
        try:
            frames = self._open(item.local or self._path).frames(number)
        except DamagedClipError as damage:
            raise RejectedInputError("its frames cannot be read", str(damage)) from None
        labels: dict[str, Label] = json.loads(item.detail)
        yield Clip(
            key=item.key,
            frames=self._resized(frames),
            labels=labels,
            identity=item.group or item.key,
            source=item.path,
            start_s=0.0,
            fps=self._config.fps,
        )

    @functools.lru_cache(maxsize=1)  # noqa: B019 - a process has one source
    def _open(self, path: str) -> Hdf5File:
        return Hdf5File(path)

    def _resized(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        size, channels = self._config.size, frames.shape[-1]
        if size is None or frames.shape[1:3] == (size, size):
            return frames
        transform = FrameTransform(size, channels)
        images = (Image.fromarray(frame if channels == 3 else frame[..., 0]) for frame in frames)
        return np.stack([transform(image) for image in images])

    @functools.cached_property
    def _local(self) -> str:
        """The file, or its copy on this machine, which disappears with this process."""
        if not storage.is_remote(self._path):
            return self._path
        self._scratch = lasting_folder("vdsm-hdf5-")
        copy = Path(self._scratch.name) / PurePosixPath(self._path).name
        storage.download(self._path, copy)
        return str(copy)

    @functools.cached_property
    def _listing(self) -> Hdf5Listing:
        require("h5py")
        if not find_inputs(self._path).explicit:
            raise UserError(f"{self._path}: not a file; source hdf5 reads one HDF5 file, named by --source.path")
        listing = list_hdf5(self._local)
        if self._config.size is None and listing.height != listing.width:
            raise UserError(
                f"{self._path}: its frames have {listing.width}x{listing.height} pixels, but must be square; set "
                "--source.hdf5.size, which crops and resizes them"
            )
        for factor in listing.factors:
            self._check_name(factor)
        return listing

    def _check_name(self, factor: ListedFactor) -> None:
        name = factor.name
        if not is_label_name(name) or name in (IDENTITY, SPLIT) or (factor.static and name == ACTION):
            raise UserError(
                f"{self._path}: the {'static' if factor.static else 'dynamic'} factor {name!r:.60} cannot be a label; "
                "rename it in the attribute classes: letters, digits, _, - and spaces, but not identity or split, nor "
                "action for a static factor"
            )

    @functools.cached_property
    def _labels(self) -> list[tuple[str, list[str], list[int]]]:
        """Name, names of the values, and number of the value in each clip, of each label."""
        used = [factor for factor in self._listing.factors if not factor.ignored]
        dynamic = [factor for factor in used if not factor.static]
        found = [(factor.name, list(factor.values), factor.labels) for factor in used if factor.static]
        if len(dynamic) == 1:
            return [(ACTION, list(dynamic[0].values), dynamic[0].labels), *found]
        if dynamic:
            rows = list(zip(*(factor.labels for factor in dynamic)))
            seen = sorted(set(rows))
            names = [" ".join(factor.values[value] for factor, value in zip(dynamic, row)) for row in seen]
            if len(set(names)) != len(names):
                names = [f"{name} ({number})" for number, name in enumerate(names)]
            index = {row: number for number, row in enumerate(seen)}
            return [(ACTION, names, [index[row] for row in rows]), *found]
        return found

    @functools.cached_property
    def _identities(self) -> list[str]:
        """Identity of each clip, also by factors that the benchmark ignores; empty where there is no static factor."""
        static = [factor.labels for factor in self._listing.factors if factor.static]
        return ["-".join(map(str, row)) for row in zip(*static)] if static else [""] * self._listing.clips

    def _splits(self) -> dict[int, str]:
        """Return the split of each clip that the file puts into one."""
        found: dict[int, str] = {}
        splitter = Splitter(seed=self._seed, test_fraction=self._config.test_fraction)
        by_identity: dict[str, str] = {}
        drawn = self._config.splits == "identities"
        for stored, numbers in self._listing.splits.items():
            split = OURS[stored]
            for number in numbers:
                identity = self._identities[number] or str(number)
                if drawn:
                    splitter.add(identity, None)
                elif found.get(number, split) != split or by_identity.setdefault(identity, split) != split:
                    raise UserError(
                        f"{self._path}: clip {number} is in {split}, but clips with the same static factors are also "
                        "in the other split; set --source.hdf5.splits identities, which draws splits by identity"
                    )
                found[number] = split
        if not found:
            raise UserError(f"{self._path}: its splits name no clip")
        if drawn:
            return {number: splitter.split(self._identities[number] or str(number)) for number in found}
        return found

"""Reading a file in the HDF5 layout of MSD-Benchmark, without following what it refers to elsewhere.

A file may name other files: by external links, by datasets whose values lie outside, by virtual datasets, and by
filters that are loaded as plugins. None of them is followed; what remains is parsed by HDF5's own library, which a
crafted file may crash, so that files of strangers belong into the sandbox (`preprocessing.sources.hdf5` reads them
there).
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cluster.errors import UserError, first_line
from cluster.extras import require
from cluster.storage import api as storage
from cluster.storage import os_errors

SPLITS = ("train", "val", "test")
"""The splits of the layout."""
MAX_CLASSES = 1 << 24
"""Longest accepted attribute `classes`, in characters."""
MAX_VALUE = 1000
"""Longest accepted name of a value, in characters."""
MAX_CLIP_BYTES = 1 << 28
"""Largest accepted clip, in bytes."""
FEW_CLIPS, BYTES_PER_CLIP = 100_000, 64
"""A file may have more than so many clips only if it has so many bytes for each: all of them are listed first."""
_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
"""Filters of HDF5 and h5py themselves; any other may be loaded from a plugin."""


class DamagedClipError(Exception):
    """The frames of a clip cannot be read; the message is a short reason."""


class Factor(NamedTuple):
    """A factor of variation."""

    column: int
    """Its column of `labels`."""
    values: list[str]
    """Names of its values, by number."""
    static: bool
    """Whether it stays the same within a clip."""
    ignored: bool
    """Whether the benchmark does not measure it."""


class Hdf5File:
    """A file that is open for reading.

    Args:
        path: the file.

    Raises:
        UserError: it is not of this layout, or h5py is not installed; the message names the part.
    """

    factors: dict[str, Factor]
    """By name, in the order of the file."""
    shape: tuple[int, int, int, int, int]
    """N, T, C, H and W of the frames."""

    def __init__(self, path: str | Path) -> None:
        require("h5py")
        import h5py

        self.path = str(path)
        try:
            with storage.open_file(path) as file:  # refuses a pipe, which would block
                self._bytes = file.seek(0, 2)
        except OSError as error:
            os_errors.explain(path, error)
        try:
            self._file = h5py.File(path, "r", locking=False)
            self.factors = self._read_factors()
            self._data = self._dataset("data")
        except (OSError, RuntimeError, KeyError, ValueError) as error:  # of h5py, for damaged structures
            raise UserError(f"{path}: cannot be read as HDF5 ({first_line(error):.100})") from None
        data = self._data
        if data.dtype != np.uint8 or data.ndim != 5 or data.shape[2] not in (1, 3):
            raise UserError(f"{path}: data is {data.dtype} {data.shape}; it must be uint8 [N, T, C, H, W], C 1 or 3")
        if 0 in data.shape or math.prod(data.shape[1:]) > MAX_CLIP_BYTES:
            raise UserError(f"{path}: data has shape {data.shape}; a clip may have from 1 to {MAX_CLIP_BYTES} values")
        if data.chunks and math.prod(data.chunks) > MAX_CLIP_BYTES:
            raise UserError(f"{path}: data has chunks of {data.chunks}; at most {MAX_CLIP_BYTES} values are accepted")
        if len(data) > FEW_CLIPS + self._bytes // BYTES_PER_CLIP:
            raise UserError(f"{path}: {len(data)} clips in {self._bytes} bytes are too many; the file is damaged")
        self.shape = data.shape

    def labels(self) -> NDArray[np.int64]:
        """Return the numbers of the values, int64 [N, F], a column per factor.

        Raises:
            UserError: there are none, or they are not those of the factors.
        """
        found = self._read("labels", (self.shape[0], len(self.factors)))
        for name, factor in self.factors.items():
            column = found[:, factor.column]
            if not ((column >= 0) & (column < len(factor.values))).all():
                raise UserError(f"{self.path}: labels of {name} are not all from 0 to {len(factor.values) - 1}")
        return found

    def indices(self, split: str) -> NDArray[np.int64]:
        """Return the numbers of the clips of a split.

        Raises:
            UserError: there are none, or they name clips that do not exist.
        """
        found = self._read(f"{split}_indices", None)
        if not ((found >= 0) & (found < self.shape[0])).all():
            raise UserError(f"{self.path}: {split}_indices names clips that are not in data, which has {self.shape[0]}")
        return found

    def frames(self, number: int) -> NDArray[np.uint8]:
        """Return the frames of a clip: uint8 [T, H, W, C].

        Raises:
            DamagedClipError: they cannot be read.
        """
        try:
            return np.ascontiguousarray(self._data[number].transpose(0, 2, 3, 1))
        except (OSError, RuntimeError, ValueError) as error:
            raise DamagedClipError(f"{first_line(error):.100}") from None

    def _dataset(self, name: str) -> Any:
        import h5py

        link = self._file.get(name, getlink=True)
        if link is None:
            raise UserError(f"{self.path}: has no dataset {name}; it is not of the layout of MSD-Benchmark")
        if not isinstance(link, h5py.HardLink):
            raise UserError(f"{self.path}: {name} is a link to another place, which is not followed; store it here")
        found = self._file[name]
        if not isinstance(found, h5py.Dataset) or found.shape is None:
            raise UserError(f"{self.path}: has no dataset {name}; it is not of the layout of MSD-Benchmark")
        if found.external or found.is_virtual:
            raise UserError(f"{self.path}: the values of {name} lie in other files, which are not opened; copy them")
        properties = found.id.get_create_plist()
        codes = [properties.get_filter(index)[0] for index in range(properties.get_nfilters())]
        odd = next((code for code in codes if code not in _FILTERS), None)
        if odd is not None:
            known = ", ".join(_FILTERS.values())
            raise UserError(f"{self.path}: {name} is packed by filter {odd}; pack it by {known}, or not at all")
        return found

    def _read(self, name: str, shape: tuple[int, int] | None) -> NDArray[np.int64]:
        """Return a dataset of integers, [N] where `shape` is None."""
        try:
            found = self._dataset(name)
            fits = found.ndim == 1 and len(found) <= self.shape[0] if shape is None else found.shape == shape
            if not fits or found.dtype.kind not in "iu":
                wanted = f"at most {self.shape[0]} integers" if shape is None else f"integers {shape}"
                raise UserError(f"{self.path}: {name} is {found.dtype} {found.shape}; it must be {wanted}")
            return np.asarray(found[()]).astype(np.int64)
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise UserError(f"{self.path}: {name} cannot be read ({first_line(error):.100})") from None

    def _read_factors(self) -> dict[str, Factor]:
        try:
            text = self._file.attrs["classes"]
            if not isinstance(text, str | bytes) or len(text) > MAX_CLASSES:
                raise ValueError(f"it is no text of at most {MAX_CLASSES} characters")
            found = {}
            for name, entry in json.loads(text).items():
                values = sorted(entry["values"].items(), key=lambda pair: int(pair[1]))
                if [int(number) for _, number in values] != list(range(len(values))) or not values:
                    raise ValueError(f"the values of {name:.60} are not numbered from 0")
                long = next((value for value in entry["values"] if len(value) > MAX_VALUE), None)
                if long is not None:
                    raise ValueError(f"a value of {name:.60} has more than {MAX_VALUE} characters")
                "".join([name, *entry["values"]]).encode()  # text that a dataset cannot store is a ValueError
                if entry["type"] not in ("static", "dynamic"):
                    raise ValueError(f"the type of {name:.60} is neither static nor dynamic")
                ignored = bool(entry.get("ignore", False))
                found[name] = Factor(
                    int(entry["index"]), [str(value) for value, _ in values], entry["type"] == "static", ignored
                )
            if sorted(factor.column for factor in found.values()) != list(range(len(found))):
                raise ValueError("the columns of its factors are not numbered from 0")
        except (LookupError, ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise UserError(
                f"{self.path}: its attribute classes is missing or damaged ({first_line(error):.100})"
            ) from None
        return found

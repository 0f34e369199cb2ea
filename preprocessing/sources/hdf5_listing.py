"""Factors, labels and splits of an HDF5 file in the layout of MSD-Benchmark, read in the sandbox."""

from typing import Annotated, Any

from pydantic import Field

from cluster.errors import UserError
from preprocessing.hdf5_file import SPLITS, Hdf5File
from preprocessing.sources.sandboxed_listing import Listed, ListingSource, read_listing

Number = Annotated[int, Field(ge=0)]


class ListedFactor(Listed):
    """A factor of variation."""

    name: str
    values: list[str]
    """Names of its values, by number."""
    static: bool
    """Whether it stays the same within a clip."""
    ignored: bool
    """Whether the benchmark does not measure it."""
    labels: list[Number]
    """The number of its value in each clip."""


class Hdf5Listing(Listed):
    """What a file holds besides frames."""

    frames: Annotated[int, Field(ge=1)]
    """Frames per clip."""
    channels: Annotated[int, Field(ge=1, le=3)]
    height: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    clips: Number
    factors: list[ListedFactor]
    splits: dict[str, list[Number]]
    """Split of the layout -> numbers of its clips."""


def list_hdf5(path: str) -> Hdf5Listing:
    """Return what a local file holds, read in a process of its own.

    Raises:
        UserError: it is not of the layout; or reading it crashed or exceeded the limits of that process.
    """
    listing = read_listing(open_listing, path, Hdf5Listing, "HDF5")
    # The process may have been taken over by the file, so its word is checked as if it were the file.
    for factor in listing.factors:
        if len(factor.labels) != listing.clips or max(factor.labels, default=0) >= len(factor.values):
            raise UserError(f"{path}: the labels of {factor.name:.60} are not those of its clips")
    if listing.splits.keys() != set(SPLITS) or any(
        max(numbers, default=-1) >= listing.clips for numbers in listing.splits.values()
    ):
        raise UserError(f"{path}: its splits are not those of its clips")
    return listing


def _content(path: str) -> dict[str, Any]:
    file = Hdf5File(path)
    rows = file.labels()
    count, frames, channels, height, width = file.shape
    return {
        "frames": frames, "channels": channels, "height": height, "width": width, "clips": count,
        "factors": [
            {"name": name, "values": one.values, "static": one.static, "ignored": one.ignored,
             "labels": rows[:, one.column].tolist()}
            for name, one in file.factors.items()
        ],
        "splits": {split: file.indices(split).tolist() for split in SPLITS},
    }  # fmt: skip


def open_listing(path: str) -> ListingSource:
    """Return the source that gives the listing of the file `path`; called in the sandbox."""
    return ListingSource(lambda: _content(path))

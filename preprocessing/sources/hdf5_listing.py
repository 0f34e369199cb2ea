"""Factors, labels and splits of an HDF5 file in the layout of MSD-Benchmark, read in the sandbox."""

import json
from collections.abc import Iterator
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster.errors import UserError
from preprocessing.clip import Clip, Factors, Item, RejectedInputError, TransientError
from preprocessing.decoding.sandbox import DecodeProcess, SandboxFailedError
from preprocessing.hdf5_file import SPLITS, Hdf5File

CPU_SECONDS, MEMORY_MB = 60, 700
"""What reading the listing of a file may take."""

Number = Annotated[int, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class ListedFactor(_Strict):
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


class Hdf5Listing(_Strict):
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


def read_listing(path: str) -> Hdf5Listing:
    """Return what a local file holds, read in a process of its own.

    Raises:
        UserError: it is not of the layout; or reading it crashed or exceeded the limits of that process.
    """
    process = DecodeProcess(open_listing, path, cpu_seconds=CPU_SECONDS, memory_mb=MEMORY_MB)
    try:
        parts = [clip.frames.tobytes() for clip in process.clips(Item(key="listing", split="", estimated_bytes=0))]
        listing = Hdf5Listing.model_validate_json(b"".join(parts))
    except (RejectedInputError, SandboxFailedError, TransientError) as error:
        raise UserError(f"{path}: cannot be read as HDF5 ({error})") from None
    except ValidationError:
        raise UserError(f"{path}: cannot be read as HDF5 (its reader wrote what it should not)") from None
    finally:
        process.close()
    # The process may have been taken over by the file, so its word is checked as if it were the file.
    for factor in listing.factors:
        if len(factor.labels) != listing.clips or max(factor.labels, default=0) >= len(factor.values):
            raise UserError(f"{path}: the labels of {factor.name:.60} are not those of its clips")
    if listing.splits.keys() != set(SPLITS) or any(
        max(numbers, default=-1) >= listing.clips for numbers in listing.splits.values()
    ):
        raise UserError(f"{path}: its splits are not those of its clips")
    return listing


class _ListingSource:
    """The listing of a file as the bytes of one clip, which is what the sandbox can send."""

    untrusted = True
    vocabulary: dict[str, list[str]]
    factors: Factors

    def __init__(self, path: str) -> None:
        self._path, self.vocabulary, self.factors = path, {}, {}

    def items(self) -> list[Item]:
        return []

    def fingerprint(self) -> str:
        return ""

    def clips(self, item: Item) -> Iterator[Clip]:
        file = Hdf5File(self._path)
        rows = file.labels()
        count, frames, channels, height, width = file.shape
        content = {
            "frames": frames, "channels": channels, "height": height, "width": width, "clips": count,
            "factors": [
                {"name": name, "values": one.values, "static": one.static, "ignored": one.ignored,
                 "labels": rows[:, one.column].tolist()}
                for name, one in file.factors.items()
            ],
            "splits": {split: file.indices(split).tolist() for split in SPLITS},
        }  # fmt: skip
        data = np.frombuffer(json.dumps(content).encode(), dtype=np.uint8)
        yield Clip(item.key, data.reshape(-1, 1, 1, 1), {}, "", "", 0.0, 1.0)


def open_listing(path: str) -> _ListingSource:
    """Return the source that gives the listing of the file `path`; called in the sandbox."""
    return _ListingSource(path)

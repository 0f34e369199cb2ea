"""An open shard, and where the clips are in it."""

import os
import zlib
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

MAX_HEADER = 2**16
"""Longest header of a `.frames.npy` member, in bytes."""


@dataclass(frozen=True)
class ClipLocation:
    """Where the frames of a clip are stored, and what they must hash to."""

    shard: int
    """Number of the shard among those of the split."""
    offset: int
    """Offset of the `.frames.npy` member's content in the tar, in bytes."""
    length: int
    """Length of that member, in bytes."""
    crc32: int
    """CRC-32 of that member."""
    shape: tuple[int, int, int, int]
    """[T, H, W, C]."""

    def frames(self, member: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """Return the frames, uint8 [T, H, W, C], in the bytes of the member; None if its length or CRC-32 is wrong."""
        if len(member) != self.length or zlib.crc32(memoryview(member)) != self.crc32:  # type: ignore[arg-type]
            return None
        # A .npy file is a header followed by the values; the index gives their number.
        return member[self.length - int(np.prod(self.shape)) :].reshape(self.shape)


class OpenShard:
    """An open file that is closed with its last reference. Until then the cache does not evict it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.fileno = file, file.fileno()
        self.size = os.fstat(self.fileno).st_size

    def __del__(self) -> None:
        self._file.close()

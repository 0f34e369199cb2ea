"""What a source gives and a shard holds."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Item:
    """The unit of work of a source (a character, a video): all its clips are made together and stay in one split."""

    key: str
    """Unique within the source; prefix of the keys of its clips."""
    split: str
    """`train` or `test`."""
    estimated_bytes: int
    """Size of its clips in a shard, in bytes, for planning."""
    clips: int | None = None
    """How many clips it gives, where that is known beforehand."""


@dataclass(frozen=True)
class Clip:
    """A few consecutive frames with what is known of them."""

    key: str
    """Unique within the dataset; letters, digits, `_` and `-` only (a dot would end a WebDataset key)."""
    frames: NDArray[np.uint8]
    """uint8 [T, H, W, C]."""
    labels: dict[str, int]
    """Label name to index into the vocabulary of that label."""
    identity: str
    """Who or what is seen; no identity is in two splits."""
    source: str
    """Where the clip came from: a file name or the generator's name."""
    start_s: float
    """Time of the first frame in the source, in seconds."""
    fps: float
    """Frames per second."""


class Source(Protocol):
    """Gives clips. Everything it returns depends on its files, its settings and the seed alone."""

    vocabulary: dict[str, list[str]]
    """Label name to the names of its values. `action` is the dynamic factor; every other label is a static one."""

    def items(self) -> list[Item]:
        """All units of work, in a fixed order."""

    def clips(self, item: Item) -> Iterator[Clip]:
        """The clips of one item, in a fixed order."""

    def fingerprint(self) -> str:
        """SHA-256 of the inputs (empty input: of the generator's version), to notice that they changed."""

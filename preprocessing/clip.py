"""Clips, the inputs they come from, and the interface of sources. Everything else in preprocessing builds on these."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cluster.errors import one_line

_KEY = re.compile(r"[A-Za-z0-9_-]+")

SPLITS = ("train", "test")
"""The splits of every dataset."""

Factors = dict[str, Literal["clip", "frame"]]
"""Continuous factor -> whether it has one value per clip or one per frame."""
Label = int | float | list[float]
"""An index into the label's vocabulary, a continuous factor of the clip, or one value for each of its T frames."""


class RejectedInputError(Exception):
    """An input that is itself invalid, so that a retry would not help. It is recorded, and the job continues.

    A source raises it from `clips(item)`, possibly after some clips; those are kept.
    """

    def __init__(self, reason: str, where: str = "") -> None:
        reason, where = one_line(reason), one_line(where)
        super().__init__(reason, where)
        self.reason = reason
        """A short sentence, the same for all inputs with this fault: they are counted by it."""
        self.where = where
        """Where in the input, such as `frame 17` or `2.4 s`, and details of this input alone."""

    def __str__(self) -> str:
        return f"{self.reason} ({self.where})" if self.where else self.reason


class TransientError(OSError):
    """The network or a disk failed while an input was read. The read is retried; the input is not rejected."""


@dataclass(frozen=True, slots=True)
class Item:
    """An input, the unit of work of a source (a character, a video). All its clips are in one shard.

    It is listed without being opened. It holds everything that `clips` needs, so only one process lists the inputs.
    """

    key: str
    """Unique within the source; prefix of the keys of its clips."""
    split: str
    """`train` or `test`."""
    estimated_bytes: int
    """Size of its clips in a shard, in bytes, estimated from the listing; for planning."""
    clips: int | None = None
    """Number of its clips, where the listing gives it."""
    group: str = ""
    """What two splits must not share: an identity, a subject, a source video. Empty stands for `key`: nothing is known
    that it shares with others."""
    path: str = ""
    """Path below the source's path, by which records of rejected inputs name it."""
    version: str = ""
    """Changes with the content: size and modification time, ETag or hash. It reveals that an output belongs to other
    inputs. No shard contains it, so a copy of the inputs gives the same bytes."""
    detail: str = ""
    """Anything else the source needs to make the clips, such as labels and a crop box, in a format of its own."""
    doubt: str = ""
    """Why it will hardly give a clip, as far as the listing shows. It is read, but does not count in the splits."""
    local: str = ""
    """A copy of an input in S3 on this machine, for a process without credentials; never stored."""


@dataclass(frozen=True)
class Clip:
    """A few consecutive frames with their labels and provenance."""

    key: str
    """Unique within the dataset; letters, digits, `_` and `-` only (a dot would end a WebDataset key)."""
    frames: NDArray[np.uint8]
    """uint8 [T, H, W, C]."""
    labels: dict[str, Label]
    """A value for every name in the source's `vocabulary` (an int) and `factors` (a float, or T floats)."""
    identity: str
    """Who or what is shown; no identity is in two splits."""
    source: str
    """Origin of the clip: a file name or the generator's name."""
    start_s: float
    """Time of the first frame in the source, in seconds."""
    fps: float
    """Frames per second."""


Clips = Callable[[Item], Iterator[Clip]]
"""Returns the clips of an item, from the first one each time it is called."""


class Source(Protocol):
    """A source of clips. Everything it returns depends on its files, its settings and the seed alone."""

    @property
    def vocabulary(self) -> dict[str, list[str]]:
        """Label -> names of its values. `action` is the dynamic factor; every other label is static."""

    @property
    def factors(self) -> Factors:
        """The continuous factors."""

    @property
    def untrusted(self) -> bool:
        """Whether inputs are files that could crash a decoder, and are therefore decoded in a process of their own."""

    def items(self) -> list[Item]:
        """Return all inputs, in a fixed order."""

    def clips(self, item: Item) -> Iterator[Clip]:
        """Yield the clips of one item, in a fixed order.

        Raises:
            RejectedInputError: the input is itself invalid; possibly after some clips.
            TransientError: the network or a disk failed.
        """

    def fingerprint(self) -> str:
        """Return the SHA-256 of what all items share: sidecar files, the generator's version.

        An item's own content is covered by its `version`.
        """


@runtime_checkable
class Fetching(Protocol):
    """A source that copies inputs in S3 for a process without credentials."""

    def fetch(self, item: Item, folder: Path) -> Item:
        """Return an item with the path of a copy of its input on this machine, which may be in `folder`.

        Raises:
            TransientError: the network failed.
        """


def check(clip: Clip, source: Source) -> None:
    """Check a clip against the labels that its source declares.

    Raises:
        ValueError: the key, the frames, the time or the labels are invalid.
    """
    if not _KEY.fullmatch(clip.key):
        raise ValueError(f"clip key {clip.key!r} must consist of letters, digits, _ and - only")
    if clip.frames.dtype != np.uint8 or clip.frames.ndim != 4 or 0 in clip.frames.shape:
        raise ValueError(f"clip {clip.key}: frames are {clip.frames.dtype} {clip.frames.shape}, not uint8 [T, H, W, C]")
    if not 0 < clip.fps < math.inf or not math.isfinite(clip.start_s):
        raise ValueError(f"clip {clip.key}: {clip.fps} frames per second from {clip.start_s} s is not a valid time")
    if clip.labels.keys() != source.vocabulary.keys() | source.factors.keys():
        raise ValueError(f"clip {clip.key}: labels {sorted(clip.labels)} are not those of the source")
    for name, names in source.vocabulary.items():
        value = clip.labels[name]
        if not isinstance(value, int) or not 0 <= value < len(names):
            raise ValueError(f"clip {clip.key}: label {name} is {value}; it must be an index below {len(names)}")
    for name, kind in source.factors.items():
        value = clip.labels[name]
        values = value if isinstance(value, list) else [value]
        if isinstance(value, list) != (kind == "frame") or (kind == "frame" and len(values) != len(clip.frames)):
            raise ValueError(f"clip {clip.key}: factor {name} needs one value per {kind}")
        if not all(map(math.isfinite, values)):
            raise ValueError(f"clip {clip.key}: factor {name} is not a finite number")

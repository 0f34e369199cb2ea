"""What a source gives and a shard holds, and how a source says that an input is bad."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

_KEY = re.compile(r"[A-Za-z0-9_-]+")

SPLITS = ("train", "test")
"""The splits of every dataset."""

Factors = dict[str, Literal["clip", "frame"]]
"""Names of continuous labels; each has one value per clip or one per frame."""
Label = int | float | list[float]
"""An index into the label's vocabulary, a continuous factor of the clip, or one of each of its T frames."""


class RejectedInputError(Exception):
    """An input that is bad in itself, so that trying again would not help. It is recorded and the job goes on.

    A source raises it from `clips(item)`, also after some clips were given: those are kept.
    """

    def __init__(self, reason: str, where: str = "") -> None:
        super().__init__(reason, where)
        self.reason = reason
        """A short sentence, the same for all inputs with the same fault: they are counted by it."""
        self.where = where
        """Where in the input, such as `frame 17` or `2.4 s`, and what belongs to this input alone."""

    def __str__(self) -> str:
        return f"{self.reason} ({self.where})" if self.where else self.reason


class TransientError(OSError):
    """The network or a disk failed while an input was read. It is tried again, and never recorded as a bad input."""


@dataclass(frozen=True, slots=True)
class Item:
    """The unit of work of a source (a character, a video): all its clips are made together and stay in one split.

    It is listed without being opened, and holds all that `clips` needs, so that only one process lists a million.
    """

    key: str
    """Unique within the source; prefix of the keys of its clips."""
    split: str
    """`train` or `test`."""
    estimated_bytes: int
    """Size of its clips in a shard, in bytes, as far as the listing can tell; for planning and for the time left."""
    clips: int | None = None
    """How many clips it gives, where that is known beforehand."""
    group: str = ""
    """What no two splits may share: an identity, a subject, a source video. Nothing stands for `key`."""
    path: str = ""
    """What a user knows it by: its path below the source's, which a record of a bad input names."""
    version: str = ""
    """Changes when the input's content does: size and time of change, ETag or hash. Tells that an output was begun with
    other inputs; it does not enter any shard, so that a copy of the inputs gives the same bytes."""
    detail: str = ""
    """What else the source needs to make the clips, such as labels and a crop box, in a form of its own."""


@dataclass(frozen=True)
class Clip:
    """A few consecutive frames with what is known of them."""

    key: str
    """Unique within the dataset; letters, digits, `_` and `-` only (a dot would end a WebDataset key)."""
    frames: NDArray[np.uint8]
    """uint8 [T, H, W, C]."""
    labels: dict[str, Label]
    """Every name of the source's `vocabulary` (an int) and `factors` (a float, or T floats) with its value."""
    identity: str
    """Who or what is seen; no identity is in two splits."""
    source: str
    """Where the clip came from: a file name or the generator's name."""
    start_s: float
    """Time of the first frame in the source, in seconds."""
    fps: float
    """Frames per second."""


Clips = Callable[[Item], Iterator[Clip]]
"""What gives the clips of an item, from the beginning each time it is called."""


class Source(Protocol):
    """Gives clips. Everything it returns depends on its files, its settings and the seed alone."""

    @property
    def vocabulary(self) -> dict[str, list[str]]:
        """Label name to the names of its values. `action` is the dynamic factor; every other label is a static one."""

    @property
    def factors(self) -> Factors:
        """The continuous labels."""

    @property
    def untrusted(self) -> bool:
        """Whether inputs are files that may break a decoder: then each is decoded in a process that can be killed."""

    def items(self) -> list[Item]:
        """All units of work, in a fixed order."""

    def clips(self, item: Item) -> Iterator[Clip]:
        """The clips of one item, in a fixed order, made as they are asked for.

        Raises:
            RejectedInputError: the input is bad in itself, at once or after some clips.
            TransientError: the network or a disk failed.
        """

    def fingerprint(self) -> str:
        """SHA-256 of what all items share: sidecar files, the generator's version. What belongs to one item is in its
        `version`."""


def check(clip: Clip, source: Source) -> None:
    """ValueError if a source made something that is no clip."""
    if not _KEY.fullmatch(clip.key):
        raise ValueError(f"clip key {clip.key!r}: only letters, digits, _ and - are allowed")
    if clip.frames.dtype != np.uint8 or clip.frames.ndim != 4 or 0 in clip.frames.shape:
        raise ValueError(f"clip {clip.key}: frames are {clip.frames.dtype} {clip.frames.shape}, not uint8 [T, H, W, C]")
    if not 0 < clip.fps < math.inf or not math.isfinite(clip.start_s):
        raise ValueError(f"clip {clip.key}: {clip.fps} frames per second from {clip.start_s} s")
    if clip.labels.keys() != source.vocabulary.keys() | source.factors.keys():
        raise ValueError(f"clip {clip.key}: labels {sorted(clip.labels)} are not those of the source")
    for name, names in source.vocabulary.items():
        value = clip.labels[name]
        if not isinstance(value, int) or not 0 <= value < len(names):
            raise ValueError(f"clip {clip.key}: label {name} is {value}; there are {len(names)} names")
    for name, kind in source.factors.items():
        value = clip.labels[name]
        values = value if isinstance(value, list) else [value]
        if isinstance(value, list) != (kind == "frame") or (kind == "frame" and len(values) != len(clip.frames)):
            raise ValueError(f"clip {clip.key}: factor {name} needs one value per {kind}")
        if not all(math.isfinite(one) for one in values):
            raise ValueError(f"clip {clip.key}: factor {name} is not a finite number")

"""Labelled clips as the evaluation reads them."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ACTION = "action"
"""The label that is the dynamic factor; every other label is a static attribute."""
FRAMES_AT_ONCE = 256
"""Most frames encoded, decoded or judged at once, whatever the length of a clip: bounds the memory."""


class LabelledClips(Protocol):
    """One split of a data set: random access to clips and what is known of them."""

    @property
    def keys(self) -> Sequence[str]:
        """Name of each clip, unique within the data set."""

    @property
    def identities(self) -> Sequence[str]:
        """Who or what is seen in each clip."""

    @property
    def labels(self) -> dict[str, NDArray[np.int64]]:
        """Label name to the index of each clip's value in the vocabulary: int64 [N]."""

    @property
    def vocabulary(self) -> dict[str, list[str]]:
        """Label name to the names of its values."""

    @property
    def clip_frames(self) -> Sequence[int] | NDArray[np.int64]:
        """Number of frames of each clip."""

    def __len__(self) -> int:
        """Number of clips N."""

    def frames(self, index: int) -> NDArray[np.uint8]:
        """Frames of one clip: uint8 [T, H, W, C]."""


def static_attributes(clips: LabelledClips) -> list[str]:
    """Names of the static attributes, in the order of the vocabulary."""
    return [name for name in clips.vocabulary if name != ACTION]


def batch_of(length: int) -> int:
    """How many clips of `length` frames are worked on at once."""
    return max(1, FRAMES_AT_ONCE // length)


def clip_factors(clips: LabelledClips) -> dict[str, NDArray[np.float64]]:
    """Continuous factors of a clip: float64 [N] each. A split without any need not have the attribute `factors`."""
    found: dict[str, NDArray[np.float64]] = getattr(clips, "factors", {})
    return {name: np.asarray(values, dtype=np.float64) for name, values in found.items()}


def frame_factors(
    clips: LabelledClips, length: int, indices: NDArray[np.int64] | None = None
) -> dict[str, NDArray[np.float64]]:
    """Continuous factors of the first `length` frames of some clips, or of all: float64 [N, length] each.

    A split without any need not have the method `tracks`.
    """
    tracks: Callable[[int], dict[str, NDArray[np.float64]]] | None = getattr(clips, "tracks", None)
    wanted = np.arange(len(clips)) if indices is None else indices
    if tracks is None or not len(wanted):
        return {}
    found = [tracks(int(index)) for index in wanted]
    return {name: np.stack([np.asarray(track[name])[:length] for track in found]) for name in found[0]}


def stack(
    clips: LabelledClips,
    indices: Sequence[int] | NDArray[np.int64],
    length: int,
    starts: NDArray[np.int64] | None = None,
) -> Tensor:
    """Windows of `length` frames of some clips: f32 [B, T, C, H, W] in [0, 1].

    They begin at the frames `starts` (int64 [B]), or at frame 0.
    """
    windows = []
    for position, index in enumerate(indices):
        start = 0 if starts is None else int(starts[position])
        window = clips.frames(int(index))[start : start + length]
        if len(window) != length:
            raise ValueError(
                f"clip {clips.keys[int(index)]} has no {length} frames from frame {start}; ask for fewer frames"
            )
        windows.append(window)
    frames = torch.from_numpy(np.stack(windows))
    return frames.permute(0, 1, 4, 2, 3).contiguous().float().div_(255)


def is_labelled(clips: LabelledClips) -> bool:
    """Whether a judge can learn what the clips show: they have a label of the dynamic factor."""
    return ACTION in clips.vocabulary


def check_splits(train: LabelledClips, test: LabelledClips, length: int) -> None:
    """Refuse data that cannot be measured honestly: an empty split, shared identities, or clips that are too short."""
    for split, clips in (("train", train), ("test", test)):
        if not len(clips):
            raise ValueError(f"the {split} split holds no clip; shard the data with a test share above 0")
        shortest = int(np.min(np.asarray(clips.clip_frames)))
        if shortest < length:
            raise ValueError(
                f"a clip of the {split} split has only {shortest} frames, but {length} are to be judged; "
                "ask for fewer frames"
            )
    shared = set(train.identities) & set(test.identities)
    if shared:
        raise ValueError(
            f"{len(shared)} identities are in train and in test (such as {min(shared)}); split the data by identity"
        )
    if len(set(test.identities)) < 2:
        raise ValueError("the test split has a single identity; a swap needs at least two")

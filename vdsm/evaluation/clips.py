"""Labelled clips as the evaluation reads them."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vdsm.device import CPU, upload
from vdsm.pixels import to_float

ACTION = "action"
"""The label that is the dynamic factor; every other label is a static attribute."""
FRAMES_AT_ONCE = 256
"""Maximum number of frames encoded, decoded or judged at once, which bounds the memory."""


class LabelledClips(Protocol):
    """One split of a dataset: random access to its clips and their labels."""

    @property
    def keys(self) -> Sequence[str]:
        """Name of each clip, unique within the dataset."""

    @property
    def identities(self) -> Sequence[str]:
        """Name of who or what is shown in each clip."""

    @property
    def labels(self) -> dict[str, NDArray[np.int64]]:
        """Per label, the index of each clip's value in the vocabulary: int64 [N]."""

    @property
    def vocabulary(self) -> dict[str, list[str]]:
        """Per label, the names of its values."""

    @property
    def clip_frames(self) -> Sequence[int] | NDArray[np.int64]:
        """Number of frames of each clip."""

    def __len__(self) -> int:
        """Return the number of clips N."""

    def frames(self, index: int) -> NDArray[np.uint8]:
        """Return the frames of one clip: uint8 [T, H, W, C]."""


def static_attributes(clips: LabelledClips) -> list[str]:
    """Return the names of the static attributes, in the order of the vocabulary."""
    return [name for name in clips.vocabulary if name != ACTION]


def clips_per_batch(length: int) -> int:
    """Return how many clips of `length` frames to process at once."""
    return max(1, FRAMES_AT_ONCE // length)


def clip_factors(clips: LabelledClips) -> dict[str, NDArray[np.float64]]:
    """Return the continuous factors of clips, float64 [N] each: the attribute `factors`, which a split may lack."""
    factors: dict[str, NDArray[np.float64]] = getattr(clips, "factors", {})
    return {name: np.asarray(values, dtype=np.float64) for name, values in factors.items()}


def frame_factors(
    clips: LabelledClips, length: int, indices: NDArray[np.int64] | None = None
) -> dict[str, NDArray[np.float64]]:
    """Return the continuous factors of the first `length` frames of clips: float64 [N, length] each.

    They come from the method `tracks`, which a split may lack. `indices` selects clips; None means all.
    """
    tracks: Callable[[int], dict[str, NDArray[np.float64]]] | None = getattr(clips, "tracks", None)
    chosen = np.arange(len(clips)) if indices is None else indices
    if tracks is None or not len(chosen):
        return {}
    read = [tracks(int(index)) for index in chosen]
    return {name: np.stack([np.asarray(track[name])[:length] for track in read]) for name in read[0]}


def stack(
    clips: LabelledClips,
    indices: Sequence[int] | NDArray[np.int64],
    length: int,
    starts: NDArray[np.int64] | None = None,
    device: torch.device = CPU,
) -> Tensor:
    """Return windows of `length` frames of some clips: f32 [B, T, C, H, W] in [0, 1], on `device`.

    They begin at the frames `starts` (int64 [B]), by default at frame 0.

    Raises:
        ValueError: a clip is too short.
    """
    windows = []
    for position, index in enumerate(indices):
        start = 0 if starts is None else int(starts[position])
        window = clips.frames(int(index))[start : start + length]
        if len(window) != length:
            raise ValueError(
                f"clip {clips.keys[int(index)]} has fewer than {length} frames from frame {start} on; use fewer frames"
            )
        windows.append(window)
    return to_float(upload(torch.from_numpy(np.stack(windows)), device))


def is_labelled(clips: LabelledClips) -> bool:
    """Whether a judge can learn from the clips: they have an action label."""
    return ACTION in clips.vocabulary


def check_splits(train: LabelledClips, test: LabelledClips, length: int) -> None:
    """Check that the data allows an unbiased measurement.

    Raises:
        ValueError: a split is empty, the splits share identities, or clips are shorter than `length` frames.
    """
    for split, clips in (("train", train), ("test", test)):
        if not len(clips):
            raise ValueError(f"the {split} split is empty; shard the data with a test fraction above 0")
        shortest = int(np.min(np.asarray(clips.clip_frames)))
        if shortest < length:
            raise ValueError(
                f"a clip of the {split} split has only {shortest} frames, but {length} are measured; use fewer frames"
            )
    shared = set(train.identities) & set(test.identities)
    if shared:
        raise ValueError(
            f"{len(shared)} identities are in both train and test (such as {min(shared)}); split the data by identity"
        )
    if len(set(test.identities)) < 2:
        raise ValueError("the test split has a single identity; a swap needs at least two")

"""What a clip looks like and how it moves, as numbers that need no label, no judge and no training.

The appearance forgets positions, so that it does not change with what a person does. The motion forgets colours, so
that it does not change with who does it. `docs/evaluation.md` has the measurements by which they were chosen.

Letters: B clips, T frames, C channels, H W image.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vdsm.evaluation.clips import LabelledClips, stack
from vdsm.evaluation.progress import Progress, in_batches

COLOUR_LEVELS = 6
"""Colours are counted in bins around this many levels per channel, each colour shared between the nearest bins."""
SIDE = 32
"""Frames with more pixels than SIDE x SIDE are reduced to that size before their colours are counted."""
GRID = 8
"""Motion is averaged over the cells of a GRID x GRID grid."""
STEPS = 16
"""Motion of longer clips is averaged over this many consecutive parts of the clip."""
HALF_CHANGE = 0.05
"""Difference of a pixel, of 1, that counts half as much as the largest possible: beyond it, contrast hardly matters."""


@dataclass(frozen=True)
class Traits:
    """The traits of N clips."""

    appearance: NDArray[np.float32]
    """[N, F], a unit vector each."""
    motion: NDArray[np.float32]
    """[N, G], a unit vector each, or zeros for a clip that does not move."""
    change: NDArray[np.float64]
    """Mean absolute change of a value from frame to frame: [N]; 0 for a single frame."""
    acceleration: NDArray[np.float64]
    """Mean absolute second difference of a value over time: [N]; 0 for fewer than three frames."""

    def select(self, rows: Sequence[int] | NDArray[np.int64]) -> "Traits":
        """Return the traits of some of the clips."""
        return Traits(*(getattr(self, field.name)[rows] for field in fields(self)))


def join_traits(parts: Sequence[Traits]) -> Traits:
    """Return the traits of consecutive batches as one."""
    return Traits(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Traits)))


@torch.inference_mode()
def traits_of(frames: Tensor) -> Traits:
    """Return the traits of clips f32 [B, T, C, H, W] in [0, 1], computed on the CPU."""
    frames = frames.cpu()
    steps = frames.diff(dim=1)
    turns = steps.diff(dim=1)
    change, acceleration = (
        part.abs().double().mean((1, 2, 3, 4)).numpy() if part.shape[1] else np.zeros(len(part))
        for part in (steps, turns)
    )
    return Traits(appearance(frames).numpy(), motion(frames).numpy(), change, acceleration)


def appearance(frames: Tensor) -> Tensor:
    """Return how often each colour occurs in clips f32 [B, T, C, H, W]: [B, COLOUR_LEVELS^C], of at most 3 channels.

    The most frequent colour, the background, counts as much as the second. Roots of the shares are compared, as in the
    Hellinger distance, so that small parts count too.
    """
    clips, side = len(frames), frames.shape[-1]
    images = frames[:, :, :3].flatten(0, 1)
    if side > SIDE:
        images = functional.adaptive_avg_pool2d(images, SIDE)
    values = images.unflatten(0, (clips, -1)).movedim(2, -1).flatten(1, 3).clamp(0, 1) * (COLOUR_LEVELS - 1)
    lower = values.floor().clamp(max=COLOUR_LEVELS - 2)
    upper_share, lower = values - lower, lower.long()
    bins = COLOUR_LEVELS ** values.shape[-1]
    counts = torch.zeros(clips, bins, dtype=torch.float64)
    first_bin = torch.arange(clips)[:, None] * bins
    for corner in itertools.product((0, 1), repeat=values.shape[-1]):
        code, weight = first_bin, torch.ones((), dtype=torch.float64)
        place = 1
        for channel, upper in enumerate(corner):
            share = upper_share[..., channel].double()
            weight = weight * (share if upper else 1 - share)
            code = code + (lower[..., channel] + upper) * place
            place *= COLOUR_LEVELS
        counts += torch.bincount(code.flatten(), weight.flatten(), minlength=clips * bins).view(clips, bins)
    second = counts.topk(2, dim=1).values[:, 1:]
    return functional.normalize(counts.minimum(second).sqrt(), dim=1).float()


def motion(frames: Tensor) -> Tensor:
    """Return where and when clips f32 [B, T, C, H, W] differ from their median frame: [B, min(T, STEPS) GRID^2].

    The difference d of a pixel counts d / (d + HALF_CHANGE).
    """
    difference = (frames - median_frame(frames)).abs().amax(2)
    seen = difference / (difference + HALF_CHANGE)
    size = (min(seen.shape[1], STEPS), GRID, GRID)
    return functional.normalize(functional.adaptive_avg_pool3d(seen[:, None], size).flatten(1), dim=1)


def median_frame(frames: Tensor) -> Tensor:
    """Return the median over time of clips [B, T, C, H, W]: [B, 1, C, H, W].

    Of an even number of frames, it is the lower of the two in the middle.
    """
    return frames.contiguous().median(dim=1, keepdim=True).values  # of an expanded tensor, torch returns nonsense


class TraitCollector:
    """An observer of decoded clips that keeps their traits."""

    def __init__(self) -> None:
        self._parts: list[Traits] = []

    def __call__(self, frames: Tensor) -> None:
        """Describe a batch f32 [B, T, C, H, W]."""
        self._parts.append(traits_of(frames))

    @property
    def traits(self) -> Traits:
        """Traits of all batches so far."""
        return join_traits(self._parts)


def traits_of_clips(clips: LabelledClips, length: int, batch_clips: int, progress: Progress) -> Traits:
    """Return the traits of the first `length` frames of every real clip of a split."""
    collector = TraitCollector()
    progress.start("describing real test clips", len(clips), unit="clips")
    for batch in in_batches(len(clips), batch_clips, progress):
        collector(stack(clips, range(len(clips))[batch], length))
    return collector.traits

"""What only this model can be asked for: ways between two identities, clips that go on, and clips out of nothing."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from pipeline.report.grids import Cells, Indices, fitted, real, to_uint8
from pipeline.report.pictures import Frames, rgba
from vdsm.evaluation.clips import LabelledClips, stack
from vdsm.evaluation.outputs import SwapDecoder

BAR = 3
"""Pixels of the time bar below a rollout."""
WITHIN, BEYOND, AHEAD = (130, 136, 146, 255), (213, 94, 0, 255), (130, 136, 146, 70)
"""Colours of its parts: within the trained length, beyond it, and what is still to come."""
GONE = 70
"""Opacity, of 255, of the last frame of a real clip that has ended."""


@runtime_checkable
class Explorable(Protocol):
    """A model that can do more than swap, such as `vdsm.Disentangler`."""

    def interpolate_static(self, first: Tensor, second: Tensor, steps: int) -> Tensor:
        """Static codes [B, K] and [B, K] -> [B, steps, K]."""

    def rollout(self, frames: Tensor, length: int) -> Tensor:
        """Frames [B, T, C, H, W] -> [B, length, C, H, W], however long they were."""

    def sample_prior(self, count: int, length: int, generator: torch.Generator) -> Tensor:
        """Clips [count, length, C, H, W] of which everything is drawn from the prior."""


@torch.inference_mode()
def interpolation_rows(
    decoder: SwapDecoder,
    clips: LabelledClips,
    first: Indices,
    second: Indices,
    steps: int,
    sequence_stage: bool,
    dynamics_of: Indices | None = None,
) -> Cells:
    """In each row a real clip, `steps` identities from its own to that of another, and the other clip. All of them do
    what is done in the first, or in the clip of `dynamics_of`."""
    model = decoder.model
    assert isinstance(model, Explorable)
    rows: Cells = []
    for a, b, doing in zip(first, second, first if dynamics_of is None else dynamics_of, strict=True):
        static = model.interpolate_static(decoder.codes.static[[a]], decoder.codes.static[[b]], steps)[0]
        index = np.repeat(doing, steps)
        if sequence_stage:
            decoded = decoder.with_static(index, static)
        else:
            decoded = model.decode(decoder.codes.pose[index], static)
        ends = real(clips, [a, b], decoder.length)
        rows.append([ends[0], *(fitted(cell, decoder.length) for cell in to_uint8(decoded)), ends[1]])
    return rows


def rollout_length(trained: int) -> int:
    """Frames of the rollouts of a report: four times the trained length, at most 60 frames beyond it."""
    return trained + min(3 * trained, 60)


@torch.inference_mode()
def rollout_rows(decoder: SwapDecoder, clips: LabelledClips, indices: Indices, length: int) -> Cells:
    """Real clips, which fade when they have ended, above the same clips as the model goes on with them."""
    model = decoder.model
    assert isinstance(model, Explorable)
    trained = decoder.codes.pose.shape[1]
    seen = real(clips, indices, int(max(np.asarray(clips.clip_frames)[indices])))
    above = [ended(clip, length) for clip in seen]
    below: list[Frames] = []
    for start in range(0, len(indices), decoder.batch_clips):
        batch = stack(clips, indices[start : start + decoder.batch_clips], trained)
        below += [with_time_bar(clip, trained) for clip in to_uint8(model.rollout(batch, length))]
    room = np.zeros((BAR,), dtype=np.uint8)
    return [[_padded_below(clip, len(room)) for clip in above], list(below)]


def ended(clip: Frames, length: int) -> Frames:
    """The clip, then its last frame, faded: uint8 [length, H, W, 4]."""
    shown = fitted(rgba(clip), length).copy()
    shown[len(clip) :, ..., 3] = GONE
    return shown


def with_time_bar(clip: Frames, trained: int) -> Frames:
    """The clip uint8 [T, H, W, C] with a bar below it that fills with time, in another colour beyond `trained`
    frames: uint8 [T, H + BAR, W, 4]."""
    length, _, width, _ = clip.shape
    shown = _padded_below(rgba(clip), BAR)
    ends = (np.arange(1, length + 1) * width / length).round().astype(int)
    limit = round(trained * width / length)
    for time in range(length):
        bar = shown[time, -BAR + 1 :]
        bar[:] = AHEAD
        bar[:, : ends[time]] = BEYOND
        bar[:, : min(limit, ends[time])] = WITHIN
    return shown


def _padded_below(clip: Frames, pixels: int) -> Frames:
    return np.pad(rgba(clip), ((0, 0), (0, pixels), (0, 0), (0, 0)))


@torch.inference_mode()
def prior_clips(decoder: SwapDecoder, count: int, length: int, seed: int) -> list[Frames]:
    """Clips of which identity and dynamics are drawn from the prior."""
    model = decoder.model
    assert isinstance(model, Explorable)
    return to_uint8(model.sample_prior(count, length, torch.Generator().manual_seed(seed)))


def in_rows(clips: Sequence[Frames], columns: int) -> Cells:
    """Clips from left to right, row after row; the last row may have empty cells."""
    rows: Cells = [list(clips[start : start + columns]) for start in range(0, len(clips), columns)]
    rows[-1] += [None] * (columns - len(rows[-1]))
    return rows

"""Rollouts: real clips next to the model's continuation beyond their end, with a time bar."""

import numpy as np
import torch

from pipeline.report.generative import GenerativeModel
from pipeline.report.grids import Cells, Indices, fit_length, real_clips, to_uint8
from pipeline.report.images import Frames, to_rgba
from vdsm.device import device_of
from vdsm.evaluation.clips import LabelledClips, stack
from vdsm.evaluation.outputs import SwapDecoder
from vdsm.evaluation.progress import NO_PROGRESS, Progress, in_batches

BAR = 3
"""Height of the time bar in pixels, with one empty row above it."""
TRAINED_RGBA, BEYOND_RGBA, REMAINING_RGBA = (130, 136, 146, 255), (213, 94, 0, 255), (130, 136, 146, 70)
"""Colours of the time bar: within the trained length, beyond it, and the time that remains."""
ENDED_ALPHA = 70
"""Opacity, of 255, of the last frame of a real clip that has ended."""


def rollout_length(trained: int) -> int:
    """Return the frames of a report's rollouts: four times the trained length, at most 60 frames beyond it."""
    return trained + min(3 * trained, 60)


@torch.inference_mode()
def rollout_rows(
    decoder: SwapDecoder, clips: LabelledClips, indices: Indices, length: int, progress: Progress = NO_PROGRESS
) -> Cells:
    """Return a row of real clips, faded once they have ended, and a row of rollouts of `length` frames with time bars.

    Advances the current phase of `progress` by the number of rollouts.
    """
    model = decoder.model
    assert isinstance(model, GenerativeModel)
    trained = decoder.codes.pose.shape[1]
    originals = real_clips(clips, indices, int(max(np.asarray(clips.clip_frames)[indices])))
    rollouts: list[Frames | None] = []
    for batch in in_batches(len(indices), decoder.batch_clips, progress):
        frames = stack(clips, indices[batch], trained, device=device_of(model))
        rollouts += [add_time_bar(clip, trained) for clip in to_uint8(model.rollout(frames, length))]
    return [[_pad_below(fade_after_end(clip, length), BAR) for clip in originals], rollouts]


def fade_after_end(clip: Frames, length: int) -> Frames:
    """Return the clip followed by its last frame, faded: uint8 [length, H, W, 4]."""
    extended = fit_length(to_rgba(clip), length).copy()
    extended[len(clip) :, ..., 3] = ENDED_ALPHA
    return extended


def add_time_bar(clip: Frames, trained: int) -> Frames:
    """Add a time bar below a clip uint8 [T, H, W, C]: uint8 [T, H + BAR, W, 4].

    The bar fills with time, in another colour beyond `trained` frames.
    """
    length, _, width, _ = clip.shape
    extended = _pad_below(to_rgba(clip), BAR)
    ends = (np.arange(1, length + 1) * width / length).round().astype(int)
    limit = round(trained * width / length)
    for time in range(length):
        bar = extended[time, -BAR + 1 :]
        bar[:] = REMAINING_RGBA
        bar[:, : ends[time]] = BEYOND_RGBA
        bar[:, : min(limit, ends[time])] = TRAINED_RGBA
    return extended


def _pad_below(clip: Frames, pixels: int) -> Frames:
    return np.pad(to_rgba(clip), ((0, 0), (0, pixels), (0, 0), (0, 0)))

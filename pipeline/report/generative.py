"""What a generative model can draw beyond swaps: samples of its prior, and interpolations between identities.

Functions that take a `progress` advance its current phase by the number of decoded clips.
"""

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from pipeline.report.grids import Cells, Indices, fit_length, real_clips, to_uint8
from pipeline.report.images import Frames
from vdsm.evaluation.clips import LabelledClips
from vdsm.evaluation.outputs import SwapDecoder
from vdsm.evaluation.progress import NO_PROGRESS, Progress


@runtime_checkable
class GenerativeModel(Protocol):
    """A model that can do more than swap, such as `vdsm.disentangler.Disentangler`."""

    def interpolate_static(self, first: Tensor, second: Tensor, steps: int) -> Tensor:
        """Return `steps` static codes from one to another: [B, K] and [B, K] -> [B, steps, K]."""

    def rollout(self, frames: Tensor, length: int) -> Tensor:
        """Continue clips to any length: [B, T, C, H, W] -> [B, length, C, H, W]."""

    def sample_prior(self, count: int, length: int, generator: torch.Generator) -> Tensor:
        """Return clips [count, length, C, H, W] with every code sampled from the prior."""


@torch.inference_mode()
def interpolation_rows(
    decoder: SwapDecoder,
    clips: LabelledClips,
    first: Indices,
    second: Indices,
    steps: int,
    sequence_stage: bool,
    dynamics_of: Indices | None = None,
    progress: Progress = NO_PROGRESS,
) -> Cells:
    """Return a row per pair of clips: the first real clip, `steps` interpolated identities, and the second real clip.

    All of them perform the action of the first clip or, if given, of the clip in `dynamics_of`.
    """
    model = decoder.model
    assert isinstance(model, GenerativeModel)
    rows: Cells = []
    for a, b, action_clip in zip(first, second, first if dynamics_of is None else dynamics_of, strict=True):
        static = model.interpolate_static(decoder.codes.static[[a]], decoder.codes.static[[b]], steps)[0]
        decoded = _with_static(decoder, np.repeat(action_clip, steps), static, sequence_stage)
        left, right = real_clips(clips, [a, b], decoder.length)
        rows.append([left, *decoded, right])
        progress.advance(steps)
    return rows


@torch.inference_mode()
def prior_static_rows(
    decoder: SwapDecoder,
    clips: LabelledClips,
    action_clips: Indices,
    columns: int,
    sequence_stage: bool,
    generator: torch.Generator,
    progress: Progress = NO_PROGRESS,
) -> Cells:
    """Return a row per action: its real donor, then a new identity per column, sampled from the prior."""
    static = decoder.model.sample_static(columns, generator)
    rows: Cells = []
    for action_clip in action_clips:
        decoded = _with_static(decoder, np.repeat(action_clip, columns), static, sequence_stage)
        rows.append([*real_clips(clips, [int(action_clip)], decoder.length), *decoded])
        progress.advance(columns)
    return rows


@torch.inference_mode()
def prior_dynamics_rows(
    decoder: SwapDecoder,
    clips: LabelledClips,
    identity_clips: Indices,
    columns: int,
    generator: torch.Generator,
) -> Cells:
    """Return a row per identity: its real donor, then new dynamics per column, sampled from the prior."""
    dynamics = decoder.model.sample_dynamics(columns, generator)
    rows: Cells = []
    for identity_clip in identity_clips:
        frames = decoder.with_dynamics(dynamics, np.repeat(identity_clip, columns))
        rows.append([*real_clips(clips, [int(identity_clip)], decoder.length), *to_uint8(frames)])
    return rows


def _with_static(decoder: SwapDecoder, dynamics_of: Indices, static: Tensor, sequence_stage: bool) -> list[Frames]:
    """Decode the motion of clips with given static codes [B, K]: uint8 [T, H, W, C] each."""
    if sequence_stage:
        frames = decoder.with_static(dynamics_of, static)
    else:
        frames = decoder.pose_with_static(dynamics_of, static)
    return [fit_length(clip, decoder.length) for clip in to_uint8(frames)]


@torch.inference_mode()
def sample_clips(model: GenerativeModel, count: int, length: int, seed: int) -> list[Frames]:
    """Return clips with both identity and dynamics sampled from the prior: uint8 [length, H, W, C] each."""
    return to_uint8(model.sample_prior(count, length, torch.Generator().manual_seed(seed)))

"""Everything that is decoded for the pairs, judged batch by batch, so that memory does not grow with their number.

Letters: P pairs of clips A (dynamics) and B (static); N test clips.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from vdsm.evaluation.clips import LabelledClips, stack
from vdsm.evaluation.judge import Judge, Progress, Verdicts, join, judge_frames
from vdsm.evaluation.model import CodeTable, SwapModel
from vdsm.evaluation.pairs import Indices, Pairs

HIGHEST_PSNR = 100.0
"""Decibels given to a frame without any error, whose PSNR would be infinite."""


@dataclass(frozen=True)
class Decoder:
    """A model with the codes of the test clips: decodes any combination of them."""

    model: SwapModel
    codes: CodeTable
    length: int
    """Frames per clip."""
    batch_clips: int = 32
    """Clips decoded at once."""

    def swap(self, dynamics_of: Indices, static_of: Indices) -> Tensor:
        """Action transfer through the dynamics code (stage 2): [B, T, C, H, W]."""
        return self.model.decode(
            self.model.poses(self.codes.dynamics[dynamics_of], self.length), self.codes.static[static_of]
        )

    def pose_swap(self, dynamics_of: Indices, static_of: Indices) -> Tensor:
        """The poses of A's own frames with B's static code (stage 1 alone): [B, T, C, H, W]."""
        return self.model.decode(self.codes.pose[dynamics_of], self.codes.static[static_of])

    def with_static(self, dynamics_of: Indices, static: Tensor) -> Tensor:
        """A's dynamics code with given static codes [B, K]: [B, T, C, H, W]."""
        return self.model.decode(self.model.poses(self.codes.dynamics[dynamics_of], self.length), static)

    def with_dynamics(self, dynamics: Tensor, static_of: Indices) -> Tensor:
        """Given dynamics codes [B, D] with B's static code: [B, T, C, H, W]."""
        return self.model.decode(self.model.poses(dynamics, self.length), self.codes.static[static_of])


@torch.inference_mode()
def judge_pairs(
    judge: Judge,
    pairs: Pairs,
    decode: Callable[[slice], Tensor],
    batch_clips: int,
    what: str,
    progress: Progress,
    watch: Callable[[slice, Tensor], None] = lambda batch, frames: None,
) -> Verdicts:
    """Verdicts on `decode(batch)` for consecutive slices of the pairs; `watch` sees every batch of decoded frames."""
    parts = []
    for start in range(0, len(pairs), batch_clips):
        batch = slice(start, min(start + batch_clips, len(pairs)))
        frames = decode(batch)
        parts.append(judge_frames(judge, frames))
        watch(batch, frames)
        progress(what, batch.stop, len(pairs))
    return join(parts)


@dataclass(frozen=True)
class Fidelity:
    """How far frames are from the real ones, per clip: [N]."""

    mse: NDArray[np.float64]
    """Mean squared error of values in [0, 1]."""
    psnr: NDArray[np.float64]
    """Peak signal-to-noise ratio in dB, mean over frames."""
    ssim: NDArray[np.float64]
    """Structural similarity, mean over frames."""


def fidelity(frames: Tensor, real: Tensor) -> Fidelity:
    """Both f32 [B, T, C, H, W] in [0, 1]."""
    per_frame = (frames - real).square().flatten(2).double().mean(2)
    psnr = (-10 * torch.log10(per_frame.clamp_min(10 ** (-HIGHEST_PSNR / 10)))).mean(1)
    # A clip at a time: the filters of many frames at once take gigabytes.
    ssim = torch.stack([_ssim(ours, theirs).mean() for ours, theirs in zip(frames, real, strict=True)])
    return Fidelity(per_frame.mean(1).numpy(), psnr.numpy(), ssim.numpy())


def _ssim(frames: Tensor, real: Tensor) -> Tensor:
    """[T] of frames f32 [T, C, H, W]."""
    # In float64: in float32 the variance of a flat patch is lost to rounding, and equal frames do not get 1.
    ssim = structural_similarity_index_measure(frames.double(), real.double(), data_range=1.0, reduction="none")
    assert isinstance(ssim, Tensor)
    return ssim


@torch.inference_mode()
def reconstruction_verdicts(judge: Judge, decoder: Decoder, indices: Indices, progress: Progress) -> Verdicts:
    """Verdicts on the reconstructions of clips."""
    verdicts = []
    for start in range(0, len(indices), decoder.batch_clips):
        batch = indices[start : start + decoder.batch_clips]
        verdicts.append(judge_frames(judge, decoder.pose_swap(batch, batch)))
        progress("reconstructing", start + len(batch), len(indices))
    return join(verdicts)


@torch.inference_mode()
def fidelities(
    decoder: Decoder, clips: LabelledClips, indices: Indices, progress: Progress
) -> tuple[Fidelity, Fidelity]:
    """How far the reconstructions of clips are from them, and how far a still picture is: the clip's mean."""
    measured, still = [], []
    for start in range(0, len(indices), decoder.batch_clips):
        batch = indices[start : start + decoder.batch_clips]
        real = stack(clips, batch, decoder.length)
        measured.append(fidelity(decoder.pose_swap(batch, batch), real))
        still.append(fidelity(real.mean(1, keepdim=True).expand_as(real), real))
        progress("comparing reconstructions", start + len(batch), len(indices))
    return _together(measured), _together(still)


def _together(parts: list[Fidelity]) -> Fidelity:
    return Fidelity(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("mse", "psnr", "ssim")))

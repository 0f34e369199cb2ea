"""How near decoded clips are to the real ones, value by value."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from vdsm.evaluation.clips import LabelledClips, stack
from vdsm.evaluation.pairs import Indices
from vdsm.evaluation.progress import Progress
from vdsm.evaluation.scores import Score, mean_score
from vdsm.evaluation.swap_scores import identities

HIGHEST_PSNR = 100.0
"""Decibels given to a frame without any error, whose PSNR would be infinite."""
CLIPS = 160
"""Most clips that are compared value by value; SSIM in float64 takes longer than all the rest."""


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


def some_of(indices: Indices) -> Indices:
    """At most CLIPS of the clips, evenly spread."""
    return indices[:: -(-len(indices) // CLIPS)]


@torch.inference_mode()
def reconstruction_scores(
    clips: LabelledClips, indices: Indices, length: int, decode: Callable[[Indices], Tensor], batch_clips: int,
    seed: int, progress: Progress,
) -> dict[str, Score]:  # fmt: skip
    """`reconstruction.{mse,psnr,ssim}` of `decode(indices)` for clips, and `still.*` of the clip's mean frame repeated:
    the best that is possible without motion."""
    measured, still = [], []
    progress.start("comparing reconstructions", len(indices), unit="clips")
    for start in range(0, len(indices), batch_clips):
        batch = indices[start : start + batch_clips]
        real = stack(clips, batch, length)
        measured.append(fidelity(decode(batch), real))
        still.append(fidelity(real.mean(1, keepdim=True).expand_as(real), real))
        progress.advance(len(batch))
    who = identities(clips)[indices]
    scores = {}
    for group, parts in (("reconstruction", measured), ("still", still)):
        for name in ("mse", "psnr", "ssim"):
            values = np.concatenate([getattr(part, name) for part in parts])
            scores[f"{group}.{name}"] = mean_score(values, who, None, seed)
    return scores

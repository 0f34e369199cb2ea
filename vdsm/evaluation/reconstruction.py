"""Pixel-wise distance of decoded clips from the real ones."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vdsm.evaluation.clips import LabelledClips, stack
from vdsm.evaluation.identities import identity_indices
from vdsm.evaluation.pairs import Indices
from vdsm.evaluation.progress import Progress, in_batches
from vdsm.evaluation.scores import Score, mean_score
from vdsm.evaluation.sharpness import WINDOW, similarity

HIGHEST_PSNR = 100.0
"""Upper bound in dB: a frame without any error would have an infinite PSNR."""
CLIPS = 160
"""Maximum number of clips compared."""
BORDER = WINDOW // 2
"""Pixels along each side that do not count in SSIM, because its window reaches beyond the frame there."""


@dataclass(frozen=True)
class Fidelity:
    """Distance of frames from the real ones, per clip: [N]."""

    mse: NDArray[np.float64]
    """Mean squared error of values in [0, 1]."""
    psnr: NDArray[np.float64]
    """Peak signal-to-noise ratio in dB, mean over frames."""
    ssim: NDArray[np.float64]
    """Structural similarity, mean over frames."""


def fidelity(frames: Tensor, real: Tensor) -> Fidelity:
    """Compare decoded with real frames, both f32 [B, T, C, H, W] in [0, 1]."""
    per_frame = (frames - real).square().flatten(2).double().mean(2)
    psnr = (-10 * torch.log10(per_frame.clamp_min(10 ** (-HIGHEST_PSNR / 10)))).mean(1)
    inner = similarity(frames, real)[..., BORDER:-BORDER, BORDER:-BORDER]
    return Fidelity(*torch.stack([per_frame.mean(1), psnr, inner.mean((1, 2, 3))]).cpu().numpy())


def subsample(indices: Indices) -> Indices:
    """Return at most CLIPS of the clips, evenly spread."""
    return indices[:: -(-len(indices) // CLIPS)]


@torch.inference_mode()
def reconstruction_scores(
    clips: LabelledClips, indices: Indices, length: int, decode: Callable[[Indices], Tensor], batch_clips: int,
    seed: int, progress: Progress,
) -> dict[str, Score]:  # fmt: skip
    """Return `reconstruction.{mse,psnr,ssim}` of `decode(indices)`, and `still.*` of each clip's mean frame repeated.

    The latter is the best that is possible without motion.
    """
    measured, still = [], []
    progress.start("comparing reconstructions", len(indices), unit="clips")
    for batch in in_batches(len(indices), batch_clips, progress):
        decoded = decode(indices[batch])
        decoded = decoded.cpu() if decoded.device.type == "mps" else decoded  # which has no float64
        real = stack(clips, indices[batch], length, device=decoded.device)
        measured.append(fidelity(decoded, real))
        still.append(fidelity(real.mean(1, keepdim=True).expand_as(real), real))
    clusters = identity_indices(clips.identities)[indices]
    scores = {}
    for group, parts in (("reconstruction", measured), ("still", still)):
        for name in ("mse", "psnr", "ssim"):
            values = np.concatenate([getattr(part, name) for part in parts])
            scores[f"{group}.{name}"] = mean_score(values, clusters, None, seed)
    return scores

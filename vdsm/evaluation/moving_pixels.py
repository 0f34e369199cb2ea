"""Pixel-wise distance of decoded clips from the real ones, on the pixels that move.

Most pixels of a video stand still, and a model that repeats one frame is right about all of them. Here only those count
that change in the real clip.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vdsm.evaluation.clips import LabelledClips, stack
from vdsm.evaluation.identities import identity_indices
from vdsm.evaluation.pairs import Indices
from vdsm.evaluation.progress import Progress
from vdsm.evaluation.reconstruction import HIGHEST_PSNR
from vdsm.evaluation.scores import Score, mean_score
from vdsm.evaluation.traits import median_frame

GREY_LEVELS = 20
"""A pixel moves if, in some frame, some channel differs by more than this, of 255, from its median over the frames.
Noise and compression change a pixel by less."""
REACH = 1
"""Pixels by which the moving region is extended on all sides, so that its blurred edge is inside."""
FIRST_FRAME = "first_frame"
"""Name of the reference that repeats the first frame of the real clip."""

Decoders = Mapping[str, Callable[[Indices], Tensor]]
"""By name of the system, from the indices of clips to its frames of them: f32 [B, T, C, H, W]."""


def moving_pixels(real: Tensor) -> Tensor:
    """Return which pixels of clips f32 [B, T, C, H, W] in [0, 1] move: bool [B, H, W], the same for all frames."""
    deviation = (real - median_frame(real)).abs().amax((1, 2))
    # Half a level more, so that rounding decides nothing.
    moving = (deviation > (GREY_LEVELS + 0.5) / 255).float()[:, None]
    return functional.max_pool2d(moving, 2 * REACH + 1, stride=1, padding=REACH)[:, 0] > 0


@dataclass(frozen=True)
class MovingFidelity:
    """Distance of clips from the real ones on some of their pixels: [B], NaN for a clip of which no pixel is chosen."""

    mse: NDArray[np.float64]
    """Mean squared error of values in [0, 1], over the chosen pixels of all frames."""
    psnr: NDArray[np.float64]
    """The same in dB: peak signal-to-noise ratio."""


def fidelity_on(pixels: Tensor, frames: Tensor, real: Tensor) -> MovingFidelity:
    """Compare frames with the real ones, both f32 [B, T, C, H, W] in [0, 1], on `pixels`, bool [B, H, W].

    The real clip may be the truth of a swap, where it is known, or the clip itself.
    """
    errors = (frames - real).square().double().mean((1, 2))
    chosen = pixels.double()
    mse = (errors * chosen).sum((1, 2)) / chosen.sum((1, 2))  # 0 / 0 is NaN
    psnr = -10 * torch.log10(mse.clamp_min(10 ** (-HIGHEST_PSNR / 10)))
    return MovingFidelity(mse.numpy(), psnr.numpy())


@torch.inference_mode()
def moving_scores(
    clips: LabelledClips, indices: Indices, length: int, decoders: Decoders, batch_clips: int, seed: int,
    progress: Progress,
) -> dict[str, Score]:  # fmt: skip
    """Return `moving.<system>.{psnr,mse}` of every decoder and of FIRST_FRAME, on the moving pixels of real clips.

    `moving.<system>.gain` is by how many dB a decoder is better than FIRST_FRAME, whose 0 is its chance level: a model
    below it is worth nothing where something happens. `moving.share` is the share of the pixels that move. Clips
    without a moving pixel count in `moving.share` alone.
    """
    parts: dict[str, list[MovingFidelity]] = {name: [] for name in (*decoders, FIRST_FRAME)}
    shares = []
    progress.start("comparing moving pixels", len(indices), unit="clips")
    for start in range(0, len(indices), batch_clips):
        batch = indices[start : start + batch_clips]
        real = stack(clips, batch, length)
        moving = moving_pixels(real)
        shares.append(moving.double().mean((1, 2)).numpy())
        parts[FIRST_FRAME].append(fidelity_on(moving, real[:, :1].expand_as(real), real))
        for name, decode in decoders.items():
            parts[name].append(fidelity_on(moving, decode(batch).cpu(), real))
        progress.advance(len(batch))
    clusters, share = identity_indices(clips.identities)[indices], np.concatenate(shares)
    moves = share > 0

    def score(values: NDArray[np.float64], chance: float | None = None) -> Score:
        return mean_score(values[moves], clusters[moves], chance, seed)

    scores = {"moving.share": mean_score(share, clusters, None, seed)}
    still = np.concatenate([part.psnr for part in parts[FIRST_FRAME]])
    for name, found in parts.items():
        psnr = np.concatenate([part.psnr for part in found])
        scores[f"moving.{name}.psnr"] = score(psnr)
        scores[f"moving.{name}.mse"] = score(np.concatenate([part.mse for part in found]))
        if name != FIRST_FRAME:
            scores[f"moving.{name}.gain"] = score(psnr - still, 0.0)
    return scores

"""Distance of decoded clips from the real ones, on the pixels that move.

Most pixels of a video stand still, and a model that repeats one frame is right about all of them. Here only those count
that change in the real clip: the limbs, which a judge recognises when they are smeared too.

Letters: N clips or pairs, B of them in a batch, T C H W frames.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vdsm.evaluation.clips import LabelledClips, stack
from vdsm.evaluation.identities import identity_indices
from vdsm.evaluation.pairs import Indices, Pairs
from vdsm.evaluation.progress import Progress, in_batches
from vdsm.evaluation.reconstruction import HIGHEST_PSNR
from vdsm.evaluation.scores import Score, mean_score
from vdsm.evaluation.sharpness import gradient_error, similarity
from vdsm.evaluation.traits import median_frame
from vdsm.pixels import to_float

Floats = NDArray[np.float64]
TrueSwap = Callable[[int, int], NDArray[np.uint8]]
"""From the indices of the clips that give the motion and the identity to the true swap: uint8 [T, H, W, C]."""

GREY_LEVELS = 20
"""A pixel moves if, in some frame, some channel differs by more than this, of 255, from its median over the frames.
Noise and compression change a pixel by less."""
REACH = 1
"""Pixels by which the moving region is extended on all sides, so that its blurred edge is inside."""
FIRST_FRAME = "first_frame"
"""Name of the reference that repeats the first frame of the real clip."""

Decoders = Mapping[str, Callable[[Indices], Tensor]]
"""By name of the system, from numbers of clips or pairs to its frames of them: f32 [B, T, C, H, W]."""
SWAPS_PHASE = "comparing swaps with the true ones"
"""Phase of progress that `moving_swap_scores` starts."""
MEASURES = ("psnr", "mse", "ssim", "gradient")


def moving_pixels(real: Tensor) -> Tensor:
    """Return which pixels of clips f32 [B, T, C, H, W] in [0, 1] move: bool [B, H, W], the same for all frames."""
    deviation = (real - median_frame(real)).abs().amax((1, 2))
    # Half a level more, so that rounding decides nothing.
    moving = (deviation > (GREY_LEVELS + 0.5) / 255).float()[:, None]
    return functional.max_pool2d(moving, 2 * REACH + 1, stride=1, padding=REACH)[:, 0] > 0


@dataclass(frozen=True)
class MovingFidelity:
    """Distance of clips from the real ones on some of their pixels: [B], NaN for a clip of which no pixel is chosen."""

    mse: Floats
    """Mean squared error of values in [0, 1], over the chosen pixels of all frames."""
    psnr: Floats
    """The same in dB: peak signal-to-noise ratio."""
    ssim: Floats
    """Structural similarity, mean over the chosen pixels of all frames."""
    gradient: Floats
    """Error of the edges at several scales, relative to the real edges; see `gradient_error`."""


def fidelity_on(pixels: Tensor, frames: Tensor, real: Tensor) -> MovingFidelity:
    """Compare frames with the real ones, both f32 [B, T, C, H, W] in [0, 1], on `pixels`, bool [B, H, W].

    The real clip may be the truth of a swap, where it is known, or the clip itself.
    """
    chosen = pixels.double()

    def mean(values: Tensor) -> Tensor:
        return (values * chosen).sum((1, 2)) / chosen.sum((1, 2))  # 0 / 0 is NaN

    mse = mean((frames - real).square().double().mean((1, 2)))
    psnr = -10 * torch.log10(mse.clamp_min(10 ** (-HIGHEST_PSNR / 10)))
    ssim = mean(similarity(frames, real).mean(1))
    found = (mse, psnr, ssim, gradient_error(pixels, frames, real))
    return MovingFidelity(*(values.cpu().numpy() for values in found))


@torch.inference_mode()
def moving_scores(
    clips: LabelledClips, indices: Indices, length: int, decoders: Decoders, batch_clips: int, seed: int,
    progress: Progress,
) -> dict[str, Score]:  # fmt: skip
    """Return `moving.<system>.{psnr,mse,ssim,gradient}` of every decoder and of FIRST_FRAME, on moving pixels.

    The decoders decode clips, each from its own codes. `moving.<system>.gain` is by how many dB a decoder is better
    than FIRST_FRAME, whose 0 is its chance level: a model below it is worth nothing where something happens.
    `moving.share` is the share of the pixels that move. Clips without a moving pixel count in `moving.share` alone.
    """
    progress.start("comparing moving pixels", len(indices), unit="clips")
    clusters = identity_indices(clips.identities)[indices]
    real = functools.partial(stack, clips, length=length)
    return _scores(real, indices, clusters, decoders, batch_clips, seed, progress)


@torch.inference_mode()
def moving_swap_scores(
    clips: LabelledClips, pairs: Pairs, length: int, truth: TrueSwap, decoders: Decoders, batch_clips: int, seed: int,
    progress: Progress,
) -> dict[str, Score]:  # fmt: skip
    """Return `moving.<system>.{psnr,mse,ssim,gradient,gain}` of decoders of swaps, against the true ones.

    The moving pixels are those of the true swap, and the gain is over the first frame of that.

    Args:
        clips: the test split.
        pairs: the pairs that are compared.
        length: frames of each clip.
        truth: gives the true swaps.
        decoders: from numbers of pairs to their swaps.
        batch_clips: pairs compared at once.
        seed: seed of the intervals, which draw identities of the clips that give the motion.
        progress: receives one phase.
    """
    progress.start(SWAPS_PHASE, len(pairs), unit="pairs")

    def real(batch: Indices) -> Tensor:
        wanted = zip(pairs.dynamics_of[batch].tolist(), pairs.static_of[batch].tolist(), strict=True)
        return to_float(torch.from_numpy(np.stack([truth(*pair)[:length] for pair in wanted])))

    clusters = identity_indices(clips.identities)[pairs.dynamics_of]
    found = _scores(real, np.arange(len(pairs)), clusters, decoders, batch_clips, seed, progress)
    return {name: score for name, score in found.items() if name.split(".")[1] in decoders}


def _scores(
    truth: Callable[[Indices], Tensor], numbers: Indices, clusters: Indices, decoders: Decoders, batch_clips: int,
    seed: int, progress: Progress,
) -> dict[str, Score]:  # fmt: skip
    """Return the scores of decoders and of the true first frame; `clusters` are the identities of `numbers`, [N]."""
    parts: dict[str, list[MovingFidelity]] = {name: [] for name in (*decoders, FIRST_FRAME)}
    shares = []
    for batch in in_batches(len(numbers), batch_clips, progress):
        real = truth(numbers[batch])
        moving = moving_pixels(real)
        shares.append(moving.double().mean((1, 2)).numpy())
        parts[FIRST_FRAME].append(fidelity_on(moving, real[:, :1].expand_as(real), real))
        for name, decode in decoders.items():
            parts[name].append(fidelity_on(moving, decode(numbers[batch]).cpu(), real))
    share = np.concatenate(shares)

    def score(values: Floats, chance: float | None = None) -> Score:
        measured = ~np.isnan(values)
        return mean_score(values[measured], clusters[measured], chance, seed)

    scores = {"moving.share": mean_score(share, clusters, None, seed)}
    values = {
        (name, measure): np.concatenate([getattr(part, measure) for part in found])
        for name, found in parts.items() for measure in MEASURES
    }  # fmt: skip
    scores |= {f"moving.{name}.{measure}": score(found) for (name, measure), found in values.items()}
    for name in decoders:
        scores[f"moving.{name}.gain"] = score(values[name, "psnr"] - values[FIRST_FRAME, "psnr"], 0.0)
    return scores

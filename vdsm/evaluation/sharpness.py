"""Structural similarity, and the error of edges at several scales, of chosen pixels of clips.

A blurred limb costs a mean squared error little. It costs the similarity of its surroundings, and its edges are gone.

Letters: B clips, T frames, C channels, H W image.
"""

import functools

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

WINDOW, SIGMA = 11, 1.5
"""Size and standard deviation, in pixels, of the Gaussian window of the similarity."""
_STABLE = (0.01**2, 0.03**2)
"""Constants K1^2 and K2^2 of the similarity, for values from 0 to 1."""
SCALES = (1, 2, 4)
"""Widths in pixels of the squares whose means are compared by their edges."""


def similarity(frames: Tensor, real: Tensor) -> Tensor:
    """Return SSIM (Wang et al. 2004) around every pixel of frames f32 [B, T, C, H, W] in [0, 1]: f64 [B, T, H, W].

    The mean over the channels. Frames are reflected at their border. In float64, because in float32 the variance of a
    flat patch is lost to rounding and equal frames do not get 1.
    """
    ours, theirs = frames.double(), real.double()
    down, across = (_window(size).to(ours.device) for size in frames.shape[-2:])

    def blurred(values: Tensor) -> Tensor:
        # Two products with a matrix: much faster than a convolution, whose window does not separate.
        found: Tensor = down @ values @ across.T
        return found

    mean, real_mean = blurred(ours), blurred(theirs)
    variances = blurred(ours.square() + theirs.square()) - mean.square() - real_mean.square()
    covariance = blurred(ours * theirs) - mean * real_mean
    light, structure = _STABLE
    likeness = (2 * mean * real_mean + light) / (mean.square() + real_mean.square() + light)
    return (likeness * (2 * covariance + structure) / (variances + structure)).mean(2)


@functools.cache
def _window(size: int) -> Tensor:
    """Return the matrix f64 [size, size] that blurs a line of pixels, reflected at its ends."""
    offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    weights = torch.exp(-0.5 * (offsets / SIGMA).square())
    weights /= weights.sum()
    lines = np.pad(np.arange(size), WINDOW // 2, mode="reflect")
    matrix = torch.zeros(size, size, dtype=torch.float64)
    for row in range(size):
        matrix[row].index_add_(0, torch.from_numpy(lines[row : row + WINDOW]), weights)
    return matrix


def gradient_error(pixels: Tensor, frames: Tensor, real: Tensor) -> Tensor:
    """Return the error of the edges of frames f32 [B, T, C, H, W], relative to the edges of the real ones: f64 [B].

    sum |grad f - grad x|^2 / sum |grad x|^2, the mean over SCALES; grad are the differences to the right and lower
    neighbour, of squares of that many pixels. 0 is perfect; an edge that is blurred over w of them has 1 - 1/w, a frame
    without any edge 1, and edges at wrong positions have up to 2.

    Args:
        pixels: which pixels count, bool [B, H, W]: differences of which either end does, or its square.
        frames: the frames.
        real: the frames that they should be.

    Returns:
        NaN for a clip without any edge there.
    """
    ratios = []
    for scale in SCALES:
        chosen = max_pool2d(pixels.float()[:, None], scale)[:, 0] > 0
        ours, theirs = (avg_pool2d(part.double().flatten(0, 2), scale) for part in (frames, real))
        ours, theirs = (part.unflatten(0, frames.shape[:3]) for part in (ours, theirs))
        error, edges = torch.zeros(2, len(frames), dtype=torch.float64, device=frames.device)
        for axis in (-1, -2):
            last = chosen.shape[axis] - 1
            either = (chosen.narrow(axis, 0, last) | chosen.narrow(axis, 1, last))[:, None, None]
            gradients, real_gradients = ours.diff(dim=axis), theirs.diff(dim=axis)
            error += ((gradients - real_gradients).square() * either).sum((1, 2, 3, 4))
            edges += (real_gradients.square() * either).sum((1, 2, 3, 4))
        ratios.append(torch.where(edges > 0, error / edges, torch.nan))
    return torch.stack(ratios).nanmean(0)

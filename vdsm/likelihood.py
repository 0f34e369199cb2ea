"""p(x_t | z_t, s) per pixel value, around the location given by the decoder."""

import math

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdsm.config import MIN_PIXEL_SCALE, ModelConfig
from vdsm.precision import at_least_fp32

FIRST_SCALE = 0.1
"""Initial value of a learned scale: about the error of a model that has only learned the background."""


class Likelihood(nn.Module):
    """Densities of pixel values x in [0, 1], independent given the decoder's logits a.

    `bernoulli`: x log m + (1 - x) log(1 - m), the published cross-entropy; not a density where 0 < x < 1.
    `gaussian`:  N(x | m, scale),  `laplace`: exp(-|x - m| / scale) / (2 scale). Their scale is one number for all
    pixels, fixed by the configuration or learned; it is never below MIN_PIXEL_SCALE.

    The location m is sigmoid(a); that of `laplace` is its tangent at 0, 1/2 + a/4, which may leave [0, 1]. The gradient
    of |x - m| does not shrink towards x, so steps overshoot, and a sigmoid saturated near 0 or 1 could not recover.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.kind = config.likelihood
        self.fixed_scale = config.likelihood_scale
        if self.kind != "bernoulli" and self.fixed_scale is None:
            start = math.log(math.expm1(FIRST_SCALE - MIN_PIXEL_SCALE))
            self.raw_scale = nn.Parameter(torch.tensor(start))

    def location(self, logits: Tensor) -> Tensor:
        """Return m, the mean of each pixel value's distribution, in float32 or better."""
        logits = at_least_fp32(logits)
        return 0.5 + logits / 4 if self.kind == "laplace" else torch.sigmoid(logits)

    def mean(self, logits: Tensor) -> Tensor:
        """Return the frames that the logits represent: locations clamped to [0, 1]."""
        return self.location(logits).clamp(0, 1)

    def scale(self, like: Tensor) -> Tensor:
        """Return the scale of `gaussian` and `laplace`: 0-dim, with the dtype and device of `like`."""
        if self.fixed_scale is not None:
            return like.new_full((), self.fixed_scale)
        return F.softplus(self.raw_scale.to(like.dtype)) + MIN_PIXEL_SCALE

    def forward(self, logits: Tensor) -> dist.TorchDistribution:
        """Build the distribution of a batch of clips [B] from logits [B, T, C, H, W]."""
        logits = at_least_fp32(logits)
        if self.kind == "bernoulli":
            # Pixels lie anywhere in [0, 1], so the log-probability is a cross-entropy.
            pixels: dist.TorchDistribution = dist.Bernoulli(logits=logits, validate_args=False)
        else:
            family = dist.Normal if self.kind == "gaussian" else dist.Laplace
            pixels = family(self.location(logits), self.scale(logits), validate_args=False)
        event: dist.TorchDistribution = pixels.to_event(4)
        return event

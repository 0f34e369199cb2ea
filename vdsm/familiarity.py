"""How likely a model's training data makes a clip: whether a result for it can be expected to mean anything.

A model encodes and decodes whatever it is given. The static code of a clip that is unlike the training clips lies where
theirs do not, which the density that was fitted to theirs shows; see `vdsm.code_density`.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from vdsm.disentangler import Disentangler

DRAWN = 4000
"""Static codes that a clip's is compared with."""
RARE = 0.001
"""Clips whose codes are more likely than only this share of the drawn ones are unlike the training data."""


class Familiarity(NamedTuple):
    """Of each of B clips."""

    share: Tensor
    """Share of the training distribution whose static codes are less likely than the clip's: [B] in [0, 1]."""
    psnr_db: Tensor
    """PSNR of the clip decoded from its own codes: [B]."""

    @property
    def unlike(self) -> Tensor:
        """Whether the clip is unlike the training data: bool [B]."""
        return self.share < RARE


class TrainingDistribution:
    """The training data of a model with fitted priors, as static codes drawn once, to compare clips with."""

    def __init__(self, model: Disentangler) -> None:
        assert model.fitted_priors is not None
        self._model, self._density = model, model.fitted_priors.static
        drawn = self._density.sample(DRAWN, torch.Generator().manual_seed(0))
        self.drawn = self._density.log_prob(drawn).sort().values
        """Log densities of the drawn codes, ascending: [DRAWN]."""

    def share_below(self, static: Tensor) -> Tensor:
        """Return the share of the training distribution that is less likely than static latents [B, K]: [B]."""
        likelihood = self._density.log_prob(static.to(self._density.mean))
        return torch.searchsorted(self.drawn, likelihood).double() / DRAWN

    @torch.no_grad()
    def compare(self, frames: Tensor, reconstructed: Tensor) -> Familiarity:
        """Compare clips f32 [B, T, C, H, W] in [0, 1], given what is decoded from their own codes, alike in shape."""
        static, _ = self._model.frame_model.pool_static(self._model.frame_model.encoder(frames))
        share = self.share_below(static)
        error = (reconstructed - frames).square().mean((1, 2, 3, 4))
        return Familiarity(share, -10 * error.clamp_min(1e-10).log10())


@torch.no_grad()
def familiarity(model: Disentangler, frames: Tensor) -> Familiarity | None:
    """Compare clips f32 [B, T, C, H, W] in [0, 1] with the training data; None if the model has no fitted priors."""
    if model.fitted_priors is None:
        return None
    return TrainingDistribution(model).compare(frames, model.reconstruct(frames))

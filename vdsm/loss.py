"""The loss: the annealed negative ELBO of a Pyro model and guide, plus regularisers, term by term.

loss = -E_q[log p(x | ...)] + sum over latents of w KL(q || p) + sum over regularisers of w r

Shape letters in this package: B clips, T frames per clip, C H W image, Z pose, K experts (static code), D dynamics,
R width of the recurrent nets.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import kl_divergence

from vdsm.annealing import Weights
from vdsm.config import REGULARISERS


class LossTerms(NamedTuple):
    """The loss and its terms: 0-dim tensors, in nats per pixel value, averaged over the clips of the batch.

    The terms are without their weights. A regulariser is not part of the ELBO; it is 0 where its weight is 0.
    """

    loss: Tensor
    """Annealed negative ELBO plus weighted regularisers: the quantity that is minimised. With a `pair_tolerance`, pairs
    that differ count less in it, but not in the terms below."""
    reconstruction: Tensor
    """-E_q[log p(x | ...)]."""
    kl_static: Tensor
    """KL of the static latent."""
    kl_pose: Tensor
    """KL of the poses."""
    kl_dynamics: Tensor
    """KL of the dynamics code (0 in stage 1)."""
    static_consistency: Tensor
    """Stage 1: symmetric KL between the static posteriors of two paired clips."""
    motion_consistency: Tensor
    """Stage 1: distance, from 0 to 1, of where a clip moves and where its poses move with another static code."""
    dynamics_consistency: Tensor
    """Stage 2: symmetric KL between the dynamics posteriors of a clip and of its poses decoded with another static
    code."""
    pose_distillation: Tensor
    """Stage 2: KL of the poses driven by the dynamics code from the pose posteriors of stage 1."""

    @property
    def negative_elbo(self) -> Tensor:
        """The un-annealed negative ELBO, comparable between annealing settings."""
        return self.reconstruction + self.kl_static + self.kl_pose + self.kl_dynamics

    @property
    def divergences(self) -> dict[str, Tensor]:
        """All terms but the loss and the reconstruction, by name: divergences of distributions, at least 0."""
        return {name: value for name, value in self._asdict().items() if name not in ("loss", "reconstruction")}


def loss_terms(
    guide: Trace, model: Trace, weights: Weights, *, regularisers: Mapping[str, Tensor], clip_values: int,
    shares: Tensor | None = None,
) -> LossTerms:  # fmt: skip
    """Return the one-sample ELBO, with an analytic KL(q || p) for every latent site, plus the regularisers.

    Args:
        guide: trace of q, with the latent sites `static`, `pose` and, in stage 2, `dynamics`.
        model: trace of p, replayed on `guide`. Its observed site `frames` may hold only some frames of each clip. All
            sites are batched over one plate of clips.
        weights: the multiplier of each latent's KL and of each regulariser, by name.
        regularisers: by their name in `LossTerms`, [B] each, in nats per clip.
        clip_values: T * C * H * W, by which KLs and regularisers of a clip are divided. The reconstruction is divided
            by the number of observed values, which makes it unbiased under a random choice of frames.
        shares: how much each clip counts in the loss, [B]; None means 1. The terms are averages without them.
    """

    def counted(per_clip: Tensor, average: Tensor, values: int) -> Tensor:
        return average if shares is None else (shares * per_clip).mean() / values

    observed = model.nodes["frames"]
    likelihood: Any = observed["fn"]
    frames: Any = observed["value"]
    # The log-likelihood of a clip reaches 1e5 nats: it is summed in fp32 or better, whatever the layers computed in.
    surprise, observed_values = -likelihood.log_prob(frames), frames[0].numel()
    reconstruction = surprise.mean() / observed_values
    loss = counted(surprise, reconstruction, observed_values)
    kl = dict.fromkeys(("static", "pose", "dynamics"), torch.zeros_like(reconstruction))
    for name in guide.stochastic_nodes:
        if name not in kl:
            continue
        posterior: Any = guide.nodes[name]["fn"]
        prior: Any = model.nodes[name]["fn"]
        divergence = kl_divergence(posterior, prior)
        kl[name] = divergence.mean() / clip_values
        loss = loss + getattr(weights, name) * counted(divergence, kl[name], clip_values)
    extra = dict.fromkeys(REGULARISERS, torch.zeros_like(reconstruction))
    for name, per_clip in regularisers.items():
        extra[name] = per_clip.mean() / clip_values
        loss = loss + getattr(weights, name) * counted(per_clip, extra[name], clip_values)
    return LossTerms(loss, reconstruction, kl["static"], kl["pose"], kl["dynamics"], **extra)

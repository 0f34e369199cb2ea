"""The annealed evidence lower bound of a Pyro model and guide, term by term.

Shape letters in this package: B clips, T frames per clip, C H W image, Z pose, K experts (static code), D dynamics,
R width of the recurrent nets.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import kl_divergence

from vdsm.annealing import Weights

Shape = torch.Size | list[int] | tuple[int, ...]


class LossTerms(NamedTuple):
    """Negative ELBO and its terms: 0-dim tensors, in nats per pixel value, averaged over the clips of the batch."""

    loss: Tensor
    """Negative ELBO with the annealed weights: what is minimised."""
    reconstruction: Tensor
    """-E_q[log p(x | ...)]."""
    kl_static: Tensor
    """KL of the static latent, without its weight."""
    kl_pose: Tensor
    """KL of the poses, without its weight."""
    kl_dynamics: Tensor
    """KL of the dynamics code, without its weight (0 in stage 1)."""
    disagreement: Tensor
    """In stage 1 of paired clips on who is seen, in stage 2 of clips and their doubles on what is done, without its
    weight: no part of the ELBO (0 where its weight is 0)."""
    mismatch: Tensor
    """In stage 2, KL of its poses from those of stage 1, without its weight: no part of the ELBO (0 where its weight is
    0)."""

    @property
    def negative_elbo(self) -> Tensor:
        """The un-annealed negative ELBO, comparable between annealing settings."""
        return self.reconstruction + self.kl_static + self.kl_pose + self.kl_dynamics

    @property
    def divergences(self) -> dict[str, Tensor]:
        """All terms but the loss and the reconstruction, by name: KL divergences between distributions, at least 0."""
        return {name: value for name, value in self._asdict().items() if name not in ("loss", "reconstruction")}


class ReparameterizedNormal(dist.Normal):
    """A Normal that draws `loc + scale * noise` with the given standard Normal noise instead of a hidden generator.

    The same parameters and noise then give the same sample on any device, at any number of workers, and in any
    independent computation of the loss.
    """

    def __init__(self, loc: Tensor, scale: Tensor, noise: Tensor) -> None:
        super().__init__(loc, scale, validate_args=False)
        self._noise = noise

    def expand(self, batch_shape: Shape, _instance: Any = None) -> "ReparameterizedNormal":
        """The same distribution over a larger batch (a plate asks for this)."""
        return ReparameterizedNormal(
            self.loc.expand(batch_shape), self.scale.expand(batch_shape), self._noise.expand(batch_shape)
        )

    def rsample(self, sample_shape: Shape = torch.Size()) -> Tensor:  # noqa: B008
        """loc + scale * noise, of the shape of `loc`."""
        if sample_shape:
            raise ValueError(f"the noise is for one sample, not for sample_shape {tuple(sample_shape)}")
        sample: Tensor = self.loc + self.scale * self._noise
        return sample


def disagreement(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    """The mean of KL(first || second) and KL(second || first) of two diagonal Normals, each given by loc and scale
    [B, N]: [B], in nats."""
    one, other = dist.Normal(*first, validate_args=False), dist.Normal(*second, validate_args=False)
    both_ways: Tensor = kl_divergence(one, other) + kl_divergence(other, one)
    return 0.5 * both_ways.sum(dim=-1)


def elbo_terms(
    model: Callable[..., None], guide: Callable[..., None], weights: Weights, *args: Any, frame_values: int
) -> LossTerms:
    """One-sample ELBO with analytic KL(q(z) || p(z)) for every latent site of the guide.

    Args:
        model: has an observed site `frames`, which may hold some frames of each clip only, and the latent sites of the
            guide, all batched over one plate of clips.
        guide: latent sites `static`, `pose` and, in stage 2, `dynamics`.
        weights: multiplier of each site's KL, by the site's name, and of the guide's values `disagreement` and
            `mismatch` [B], if it has them.
        args: passed to both.
        frame_values: T * C * H * W, by which the KLs of a clip are divided. The reconstruction is divided by the number
            of values observed, so that it is the same in the mean over the frames drawn.
    """
    guide_trace = poutine.trace(guide).get_trace(*args)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args)
    observed = model_trace.nodes["frames"]
    likelihood: Any = observed["fn"]
    seen: Any = observed["value"]
    # Sums over a clip's pixels run to 1e5 nats: keep them in fp32 (or better) whatever the layers computed in.
    reconstruction = -likelihood.log_prob(seen).mean() / seen[0].numel()
    loss = reconstruction
    kl = dict.fromkeys(("static", "pose", "dynamics"), torch.zeros_like(reconstruction))
    for name in guide_trace.stochastic_nodes:
        if name not in kl:
            continue
        posterior: Any = guide_trace.nodes[name]["fn"]
        prior: Any = model_trace.nodes[name]["fn"]
        kl[name] = kl_divergence(posterior, prior).mean() / frame_values
        loss = loss + getattr(weights, name) * kl[name]
    beside = dict.fromkeys(("disagreement", "mismatch"), torch.zeros_like(reconstruction))
    for name, weight in zip(beside, (weights.agreement, weights.matching), strict=True):
        if name in guide_trace:
            per_clip: Any = guide_trace.nodes[name]["value"]
            beside[name] = per_clip.mean() / frame_values
            loss = loss + weight * beside[name]
    return LossTerms(loss, reconstruction, kl["static"], kl["pose"], kl["dynamics"], **beside)

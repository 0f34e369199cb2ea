"""Distributions of the latents that Pyro does not have, and the symmetric KL of two Normals."""

from collections.abc import Callable
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Normal, constraints, register_kl
from torch.distributions import kl_divergence as divergence

from vdsm.precision import full_precision

Shape = torch.Size | list[int] | tuple[int, ...]
Transition = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""(z_{t-1} at S successive times [B, S, Z], index of the first of these t, counted from 0) -> loc, scale [B, S, Z]."""
Walk = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
"""Noise [B, T, Z] -> the path that it gives, and loc and scale of each of its steps, each [B, T, Z]."""


class ReparameterizedNormal(dist.Normal):
    """N(loc, scale), sampled as `loc + scale * noise` with given standard Normal noise instead of a hidden generator.

    The same parameters and noise then give the same sample on any device, with any number of workers, and in any
    independent computation of the loss.
    """

    def __init__(self, loc: Tensor, scale: Tensor, noise: Tensor) -> None:
        super().__init__(loc, scale, validate_args=False)
        self._noise = noise

    def expand(self, batch_shape: Shape, _instance: Any = None) -> "ReparameterizedNormal":
        """Return the same distribution over a larger batch, as a Pyro plate requests."""
        return ReparameterizedNormal(
            self.loc.expand(batch_shape), self.scale.expand(batch_shape), self._noise.expand(batch_shape)
        )

    def rsample(self, sample_shape: Shape = torch.Size()) -> Tensor:  # noqa: B008
        """Return loc + scale * noise, of the shape of `loc`. Raise ValueError for a non-empty `sample_shape`."""
        if sample_shape:
            raise ValueError(f"the noise is for one sample, not for sample_shape {tuple(sample_shape)}")
        sample: Tensor = self.loc + self.scale * self._noise
        return sample


def zero_mean(scale: float, like: Tensor) -> dist.TorchDistribution:
    """Return N(0, scale), 0-dim, with the dtype and device of `like`.

    Filled on the device, and not validated: to copy a number there, or to check one, the host waits for the device.
    """
    normal: dist.TorchDistribution = dist.Normal(like.new_zeros(()), like.new_full((), scale), validate_args=False)
    return normal


def symmetric_kl(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    """Return the mean of KL(first || second) and KL(second || first): [B], in nats.

    Args:
        first: loc and scale of a diagonal Normal, each [B, N].
        second: those of another.
    """
    one, other = dist.Normal(*first, validate_args=False), dist.Normal(*second, validate_args=False)
    both_ways: Tensor = divergence(one, other) + divergence(other, one)
    return 0.5 * both_ways.sum(dim=-1)


class GaussianChain(dist.TorchDistribution):
    """p(z_1..T) = prod_t N(z_t | loc_t(z_{t-1}), scale_t(z_{t-1})): batch of clips [B], events [T, Z].

    A first-order Gaussian chain as one distribution, so that the whole pose sequence is a single Pyro site.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(
        self,
        transition: Transition,
        initial: Tensor,
        length: int,
        noise: Tensor | None = None,
        walk: Walk | None = None,
    ) -> None:
        """Set up the chain without sampling.

        Args:
            transition: computes the conditionals, one time step when sampling, all time steps at once on a known path.
            initial: z_0, [B, Z].
            length: T.
            noise: standard Normal noise [B, T, Z] for `rsample`; None draws it from torch's global generator.
            walk: samples as `transition` does, in fewer operations; None means one call of it for each step.
        """
        self._transition = transition
        self._walk = walk
        self._initial = initial
        self._noise = noise
        self._sampled: tuple[Tensor, Tensor, Tensor] | None = None
        super().__init__(initial.shape[:1], torch.Size([length, initial.shape[1]]), validate_args=False)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> "GaussianChain":
        """Return the chain itself, which already has one element per clip. Raise ValueError for any other batch."""
        if torch.Size(batch_shape) != self.batch_shape:
            raise ValueError(
                f"a chain over {tuple(self.batch_shape)} clips cannot become one over {tuple(batch_shape)}"
            )
        return self

    def rsample(self, sample_shape: Shape = torch.Size()) -> Tensor:  # noqa: B008
        """Return one path z [B, T, Z], sampled step by step. Raise ValueError for a non-empty `sample_shape`."""
        if sample_shape:
            raise ValueError(f"the noise is for one sample, not for sample_shape {tuple(sample_shape)}")
        shape = self.batch_shape + self.event_shape
        noise = self._initial.new_empty(shape).normal_() if self._noise is None else self._noise
        if self._walk is not None:
            with full_precision(noise):
                self._sampled = self._walk(noise)
            return self._sampled[0]
        pose, steps = self._initial, []
        for time in range(self.event_shape[0]):
            loc, scale = (part[:, 0] for part in self._parameters(pose[:, None], time))
            pose = loc + scale * noise[:, time]
            steps.append((pose, loc, scale))
        path, locs, scales = (torch.stack(parts, dim=1) for parts in zip(*steps, strict=True))
        self._sampled = path, locs, scales
        return path

    def conditionals(self, path: Tensor) -> Normal:
        """Return N(z_t | z_{t-1}) for all t of a known path [B, T, Z] at once; only sampling needs a loop."""
        if self._sampled is not None and path is self._sampled[0]:
            return Normal(*self._sampled[1:], validate_args=False)
        previous = torch.cat([self._initial[:, None], path[:, :-1]], dim=1)
        return Normal(*self._parameters(previous, 0), validate_args=False)

    def _parameters(self, previous: Tensor, start: int) -> tuple[Tensor, Tensor]:
        with full_precision(previous):
            return self._transition(previous, start)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density [B] of paths [B, T, Z]."""
        density: Tensor = self.conditionals(value).log_prob(value).sum((-2, -1))
        return density

    @property
    def path(self) -> Tensor:
        """The last path sampled, [B, T, Z]. Raises ValueError if there is none."""
        if self._sampled is None:
            raise ValueError("the chain has not been sampled")
        return self._sampled[0]


@register_kl(GaussianChain, GaussianChain)
def _kl_chain_chain(q: GaussianChain, p: GaussianChain) -> Tensor:
    # E_q[sum_t KL(q(z_t | z_{t-1}) || p(z_t | z_{t-1}))]: each step analytic, the outer expectation over q's own path.
    return divergence(q.conditionals(q.path), p.conditionals(q.path)).sum((-2, -1))

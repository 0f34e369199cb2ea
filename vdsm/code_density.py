"""Densities of codes that were fitted to the codes of training clips, from which new codes are sampled.

The published priors are standard shapes that the codes need not have: a trained model's codes can lie far from where
p(i) and p(d) put them, and what is decoded from a sample of these is then no clip. The fitted prior of a code is

    z = mean + mixing s,  p(s) = prod_b p(s_b),  p(s_b) = sum_m w_m N(mu_m, L_m L_m^T)

over disjoint blocks b of the coordinates s. It holds means and covariances, and no clip.

Letters: N codes of size K, S coordinates, M components of a mixture over d coordinates.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Block:
    """A mixture of Gaussians over some of the coordinates."""

    coordinates: Tensor
    """Their indices: int64 [d]."""
    weights: Tensor
    """[M], which sum to 1."""
    means: Tensor
    """[M, d]"""
    cholesky: Tensor
    """Lower triangular factors of the covariances: [M, d, d]."""

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Sample coordinates [count, d]."""
        device = generator.device
        drawn = torch.multinomial(self.weights.to(device), count, replacement=True, generator=generator)
        noise = torch.randn(count, self.means.shape[1], generator=generator, device=device).to(self.means)
        drawn = drawn.to(self.means.device)
        around: Tensor = (self.cholesky[drawn] @ noise[..., None])[..., 0]
        return self.means[drawn] + around

    def log_prob(self, coordinates: Tensor) -> Tensor:
        """Return the log density of coordinates [N, d], in nats: [N]."""
        components = torch.distributions.MultivariateNormal(self.means, scale_tril=self.cholesky, validate_args=False)
        joint: Tensor = components.log_prob(coordinates[:, None]) + self.weights.log()
        return joint.logsumexp(1)


@dataclass(frozen=True)
class CodeDensity:
    """The fitted density of a code."""

    mean: Tensor
    """[K]"""
    mixing: Tensor
    """[K, S], of full column rank; S < K if the code does not use all its directions, such as logits of a softmax."""
    blocks: tuple[Block, ...]
    """Independent of each other; every coordinate is in one of them."""

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Sample codes [count, K]."""
        coordinates = self.mean.new_empty(count, self.mixing.shape[1])
        for block in self.blocks:
            coordinates[:, block.coordinates] = block.sample(count, generator)
        return self.mean + coordinates @ self.mixing.T

    def log_prob(self, codes: Tensor) -> Tensor:
        """Return the log density of codes [N, K] within the span of `mixing`, in nats: [N]."""
        coordinates = (codes - self.mean) @ torch.linalg.pinv(self.mixing).T
        volume: Tensor = 0.5 * torch.linalg.slogdet(self.mixing.T @ self.mixing).logabsdet
        parts = [block.log_prob(coordinates[:, block.coordinates]) for block in self.blocks]
        return torch.stack(parts).sum(0) - volume

    def to_dict(self) -> dict[str, Any]:
        """Return tensors and plain values for a checkpoint."""
        blocks = [{field.name: getattr(block, field.name) for field in fields(block)} for block in self.blocks]
        return {"mean": self.mean, "mixing": self.mixing, "blocks": blocks}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "CodeDensity":
        """Return the density that `to_dict` returned the content of.

        Raises:
            ValueError: the parts do not fit each other.
        """
        try:
            density = cls(content["mean"], content["mixing"], tuple(Block(**block) for block in content["blocks"]))
            density.sample(1, torch.Generator().manual_seed(0))
            used = torch.cat([block.coordinates for block in density.blocks]).sort().values
            fits = torch.equal(used, torch.arange(density.mixing.shape[1]))
        except (AttributeError, KeyError, TypeError, RuntimeError, IndexError) as error:
            raise ValueError(f"the fitted prior is damaged: {error}") from error
        if not fits:
            raise ValueError("the fitted prior is damaged: its blocks do not cover every coordinate once")
        return density


def density_at(code: Tensor) -> CodeDensity:
    """Return a density all of whose samples are `code` [K], up to a millionth in its first entry."""
    mixing = torch.zeros(len(code), 1).to(code)
    mixing[0] = 1e-6
    one = torch.ones(1, 1).to(code)
    block = Block(torch.zeros(1, dtype=torch.int64), one[0], torch.zeros_like(one), one[None])
    return CodeDensity(code.clone(), mixing, (block,))


class FittedPriors(NamedTuple):
    """The fitted priors of a trained model."""

    static: CodeDensity
    """Of the static latent i, before the softmax."""
    dynamics: CodeDensity | None = None
    """Of the dynamics code d; None without a sequence stage."""

    def to_dict(self) -> dict[str, Any]:
        """Return tensors and plain values for a checkpoint."""
        return {name: density.to_dict() for name, density in self._asdict().items() if density is not None}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], static_size: int, dynamics_size: int) -> "FittedPriors":
        """Return the priors that `to_dict` returned the content of, for codes of the given sizes.

        Raises:
            ValueError: they are damaged, or of other sizes.
        """
        if "static" not in content:
            raise ValueError("the fitted priors are damaged: that of the static code is missing")
        found = {name: CodeDensity.from_dict(content[name]) for name in cls._fields if name in content}
        for name, size in (("static", static_size), ("dynamics", dynamics_size)):
            if name in found and found[name].mean.shape != (size,):
                raise ValueError(f"the fitted prior of the {name} code is not for codes of size {size}")
        return cls(**found)

"""The priors of the codes, fitted at the end of a stage to the codes of clips it was trained on."""

import importlib.util
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.training.batches import read_windows, to_model
from pipeline.training.distributed import DistributedContext
from pipeline.training.draws_of_keys import derive_seed
from pipeline.training.job import Job
from pipeline.training.order import GlobalOrder, Indices, Windows
from vdsm.code_density import CodeDensity, FittedPriors
from vdsm.disentangler import Disentangler

BATCH_CLIPS = 32
DIVERGENCE_SAMPLES = 4000
SCATTERED, RUNS = 10**5, 128
"""Of more clips than `SCATTERED`, so many runs of neighbours are drawn, and not single clips: these would be in
thousands of shards, each of which would have to be fetched."""


class CodePosteriors(NamedTuple):
    """Loc and scale of the codes of N clips: [N, K] of the static latent, [N, D] of the dynamics code."""

    static: tuple[Tensor, Tensor]
    dynamics: tuple[Tensor, Tensor]

    def with_constant(self, silent: Tensor, constant: Tensor) -> "CodePosteriors":
        """Return them with some dimensions of the dynamics code's loc, bool [D], replaced by `constant`, [D]."""
        loc, scale = self.dynamics
        return self._replace(dynamics=(torch.where(silent, constant.to(loc), loc), scale))


class FittedPrior(NamedTuple):
    """The fitted prior of one code, and what the events of the run keep of its choice."""

    density: CodeDensity
    summary: dict[str, Any]


def is_installed(module: str) -> bool:
    """Return whether a module can be imported."""
    return importlib.util.find_spec(module) is not None


def prior_clips(order: GlobalOrder, maximum: int) -> tuple[Indices, Indices]:
    """Return the clips whose codes the priors are fitted to and chosen by: at most `maximum`, and a third of that."""
    clips = order.clips
    return (
        clips.train_at(_drawn(clips.train_count, maximum, order.seed)),
        clips.validation_at(_drawn(clips.validation_count, max(1, maximum // 3), order.seed)),
    )


def _drawn(count: int, maximum: int, seed: int) -> Indices:
    """Return at most so many of the numbers below `count`, in ascending order."""
    generator = np.random.default_rng(derive_seed(seed, "priors"))
    if count <= SCATTERED:
        return np.sort(generator.permutation(count)[:maximum])
    length = -(-min(maximum, count) // RUNS)
    runs = np.sort(generator.choice(count // length, min(maximum, count) // length, replace=False))
    return (runs[:, None] * length + np.arange(length)).ravel()


@torch.no_grad()
def encode_posteriors(
    model: Disentangler, job: Job, clips: Indices, world: DistributedContext, starts: Indices | None = None
) -> CodePosteriors:
    """Encode a window of each clip. Each rank encodes its part, and all return the same; all must call together.

    Args:
        starts: first frame of each window; None: that of the clip.
    """
    # Clips are used at this length, in stage 1 as well, if all are that long.
    window = min(job.training.stage2.clip_frames, *(int(job.clips.clip_frames[clip]) for clip in clips.tolist()))
    starts = np.zeros(len(clips), dtype=np.int64) if starts is None else starts
    config, rows = model.config, world.rows(len(clips))
    sizes = (config.num_experts, config.num_experts, config.dynamics_size, config.dynamics_size)
    found = [torch.zeros(len(clips), size, dtype=torch.float64) for size in sizes]
    was_training = model.training
    model.eval()
    for start in range(rows.start, rows.stop, BATCH_CLIPS):
        batch = slice(start, min(start + BATCH_CLIPS, rows.stop))
        windows = Windows(clips[batch], starts[batch], None, None)
        frames = to_model(read_windows(job.clips, windows, window), world.device)
        latents = model.frame_model.encoder(frames)
        static = model.frame_model.pool_static(latents)
        dynamics = model.sequence_model.dynamics_encoder(latents.pose_loc)
        for column, values in zip(found, (*static, *dynamics), strict=True):
            column[batch] = values.double().cpu()
    model.train(was_training)
    loc, scale, dynamics_loc, dynamics_scale = (world.sum(column) for column in found)
    return CodePosteriors((loc, scale), (dynamics_loc, dynamics_scale))


def silent_dimensions(train: CodePosteriors) -> Tensor:
    """Return which dimensions of the dynamics code say nothing of a clip: bool [D].

    Their means vary less than a tenth as much as their noise: 0.005 nats. A sample shows nothing of that, and yet a
    probe of the means reads from them what the code is meant not to hold. None if all are: then the code is untrained.
    """
    loc, scale = train.dynamics
    silent = loc.var(0, correction=0) < 0.01 * scale.square().mean(0)
    return silent & ~silent.all()


def fit_priors(
    model: Disentangler, stage: int, train: CodePosteriors, validation: CodePosteriors, seed: int
) -> tuple[FittedPriors, dict[str, Any]]:
    """Fit the priors of both codes, of the static one alone after stage 1.

    Returns:
        The priors, and for each code its groups of factors, the number of components of each group, the validation
        log likelihood and the KL of the fitted prior from the published one, in nats.
    """
    static = _fit(
        "static", train.static, validation.static, seed, model.frame_model.static_prior_scale, _contrasts(model)
    )
    summary = {"static": static.summary}
    if stage < 2:
        return FittedPriors(static.density), summary
    every = torch.eye(model.config.dynamics_size, dtype=torch.float64)
    dynamics = _fit(
        "dynamics", train.dynamics, validation.dynamics, seed, model.sequence_model.dynamics_prior_scale, every
    )
    return FittedPriors(static.density, dynamics.density), summary | {"dynamics": dynamics.summary}


def _fit(
    name: str, train: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor], seed: int, published_scale: float,
    basis: Tensor,
) -> FittedPrior:  # fmt: skip
    from pipeline.training.code_density_fit import fit_code_density

    generator = torch.Generator().manual_seed(derive_seed(seed, "priors", name))
    codes, held = (
        loc + scale * torch.randn(loc.shape, generator=generator, dtype=loc.dtype) for loc, scale in (train, validation)
    )
    noise_scale = float(train[1].square().mean().sqrt())
    fit = fit_code_density(codes.numpy(), held.numpy(), noise_scale, seed % 2**32, basis.numpy())
    summary = {
        "groups": fit.groups,
        "components": fit.components,
        "validation_log_likelihood": round(fit.validation, 3),
        "kl_from_published": round(divergence(fit.density, published_scale, basis, generator), 3),
    }
    return FittedPrior(fit.density, summary)


def divergence(density: CodeDensity, scale: float, basis: Tensor, generator: torch.Generator) -> float:
    """Return KL(density || N(0, scale)) along the orthonormal directions `basis` [K, S] in nats, by sampling."""
    codes = density.sample(DIVERGENCE_SAMPLES, generator)
    published = torch.distributions.Normal(0.0, scale).log_prob(codes @ basis.to(codes)).sum(1)
    return float((density.log_prob(codes) - published).double().mean())


def _contrasts(model: Disentangler) -> Tensor:
    """Return orthonormal directions [K, S] of the static latent that its softmax sees: differences within a group."""
    groups = model.config.static_groups
    experts = model.config.num_experts // groups
    if experts == 1:
        return torch.eye(model.config.num_experts, dtype=torch.float64)
    centred = torch.eye(experts, dtype=torch.float64) - 1 / experts
    within = torch.linalg.qr(centred).Q[:, : experts - 1]
    every: Tensor = torch.block_diag(*[within] * groups)
    return every

"""Stage 2, the sequence model (`VDSM_Seq` in the release): one dynamics code per clip drives the whole pose sequence.

p: d ~ N(0, 1/D),  z_1 ~ N(0, 1),  z_t ~ N(GatedTransition(z_{t-1}, d)),  x_t ~ Likelihood(decoder(z_t, s))
q: q(d | x_1..T),  q(z_t | z_{t-1}, d) = N(Combiner(z_{t-1}, rnn_t(d), d)),  q(i | x_1..T) as in stage 1
"""

from functools import partial
from typing import NamedTuple

import pyro
import torch
import torch.nn.functional as F
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from vdsm.annealing import Weights
from vdsm.combiner import Combiner
from vdsm.config import ModelConfig
from vdsm.distributions import GaussianChain, ReparameterizedNormal, symmetric_kl, zero_mean
from vdsm.dropout import SeededDropout, final_states
from vdsm.dynamics_decoders import make_dynamics_decoder
from vdsm.encoder import FrameLatents, positive_scale, start_scale_at
from vdsm.frames import FrameModel
from vdsm.loss import LossTerms, loss_terms
from vdsm.precision import full_precision
from vdsm.row_streams import Generator, normal


class SequenceNoise(NamedTuple):
    """Standard Normal noise of the latents of stage 2."""

    static: Tensor
    """[B, K]"""
    dynamics: Tensor
    """[B, D]"""
    pose: Tensor
    """[B, T, Z]"""
    other_static: Tensor
    """[B, K], of the static codes from the prior in `SequenceModel.dynamics_consistency`."""


class SequencePosterior(NamedTuple):
    """Parameters of the guide of stage 2, except those of the poses, which depend on the sampled dynamics code."""

    latents: FrameLatents
    """q(z_t | x_t) of the frozen image encoder, for all frames."""
    seen: FrameLatents
    """Those of the frames from which the codes are inferred."""
    static: tuple[Tensor, Tensor]
    """Loc and scale of q(i | x_1..T), each [B, K]."""
    dynamics: tuple[Tensor, Tensor]
    """Loc and scale of q(d | x_1..T), each [B, D]."""


class StoredLatents(NamedTuple):
    """What the frozen frame model made of a batch before the step."""

    latents: FrameLatents
    """q(z_t | x_t), for all frames."""
    double: Tensor
    """Pose locs of the same poses, decoded with another static code and encoded again, [B, T, Z]; see
    `SequenceModel.doubled`. Empty if `dynamics_consistency` has weight 0."""

    def rows(self, rows: slice) -> "StoredLatents":
        """Return those of some clips of the batch."""
        return StoredLatents(FrameLatents(*(part[rows] for part in self.latents)), self.double[rows])


class GatedTransition(nn.Module):
    """p(z_t | z_{t-1}, d) = N((1 - g) step(z_{t-1}) + g m, softplus(raw_scale(relu(m)))), gate g, proposed mean m."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        pose, inputs, width = config.pose_size, config.pose_size + config.dynamics_size, config.rnn_width
        self.gate = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, pose), nn.Sigmoid())
        self.proposed = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, pose))
        self.step = nn.Linear(pose, pose)
        self.raw_scale = nn.Linear(pose, pose)
        # Initialised as the identity, the linear step keeps the pose until the gate has learned otherwise.
        nn.init.eye_(self.step.weight)
        nn.init.zeros_(self.step.bias)

    def forward(self, previous: Tensor, dynamics: Tensor) -> tuple[Tensor, Tensor]:
        """Return loc and scale of z_t, each [..., Z], given z_{t-1} [..., Z] and d [..., D]."""
        inputs = torch.cat([previous, dynamics], dim=-1)
        gate, proposed = self.gate(inputs), self.proposed(inputs)
        loc = (1 - gate) * self.step(previous) + gate * proposed
        return loc, positive_scale(self.raw_scale(F.relu(proposed)))


class DynamicsEncoder(nn.Module):
    """q(d | x_1..T), from the final states of a bidirectional LSTM over the poses of the clip."""

    def __init__(self, config: ModelConfig, prior_scale: float, dropout: SeededDropout) -> None:
        super().__init__()
        layers, width = config.rnn_layers, config.rnn_width
        self.rnn = nn.LSTM(
            config.pose_size, width, layers, batch_first=True, dropout=dropout.probability, bidirectional=True
        )
        self.dropout = dropout
        self.initial = nn.Parameter(torch.zeros(2, 2 * layers, 1, width))
        self.loc = nn.Linear(2 * layers * width, config.dynamics_size)
        self.raw_scale = nn.Linear(2 * layers * width, config.dynamics_size)
        start_scale_at(self.raw_scale, prior_scale)
        if config.dynamics_init == "scaled":
            with torch.no_grad():
                self.loc.weight.mul_(prior_scale * config.dynamics_size)

    def forward(self, poses: Tensor) -> tuple[Tensor, Tensor]:
        """Return loc and scale of d, each [B, D], given pose locs [B, T, Z]."""
        hidden, cell = self.initial.expand(-1, -1, poses.shape[0], -1).contiguous()
        with full_precision(poses):
            final = final_states(self.rnn, poses, hidden, cell, self.dropout)
            features = final.transpose(0, 1).flatten(1)
            return F.leaky_relu(self.loc(features)), positive_scale(self.raw_scale(features))

    @torch.no_grad()
    def silence(self, silent: Tensor, constant: Tensor) -> Tensor:
        """Make some dimensions of loc, bool [D], those of `constant` [D] for all clips. Return what they are, [D]."""
        value, silent = constant.to(self.loc.bias), silent.to(self.loc.bias.device)
        self.loc.weight[silent] = 0
        # What the leaky ReLU turns into the constant.
        self.loc.bias[silent] = torch.where(value < 0, value / 0.01, value)[silent]
        return F.leaky_relu(self.loc.bias)


class SequenceModel(nn.Module):
    """p(i) p(d) p(z_1..T | d) p(x_1..T | z_1..T, i) and its guide, around the trained frame model."""

    def __init__(self, config: ModelConfig, frame_model: FrameModel) -> None:
        super().__init__()
        self.config = config
        self.dynamics_prior_scale = config.dynamics_prior_scale or 1 / config.dynamics_size
        self.frame_model = frame_model
        self.dropout = SeededDropout(config.rnn_dropout if config.rnn_layers > 1 else 0.0)
        self.dynamics_encoder = DynamicsEncoder(config, self.dynamics_prior_scale, self.dropout)
        self.dynamics_decoder = make_dynamics_decoder(config, self.dropout)
        self.combiner = Combiner(config)
        self.transition = GatedTransition(config)

    def draw_noise(self, clips: int, frames: int, generator: Generator) -> SequenceNoise:
        """Return noise for `clips` clips of `frames` frames, on the generator's device."""
        config = self.config
        sizes = ((config.num_experts,), (config.dynamics_size,), (frames, config.pose_size), (config.num_experts,))
        return SequenceNoise(*(normal(generator, clips, *size) for size in sizes))

    def forward(
        self, frames: Tensor, noise: SequenceNoise, weights: Weights, decoded: Tensor | None = None,
        seen: int | None = None, stored: StoredLatents | None = None,
    ) -> LossTerms:  # fmt: skip
        """Return the loss of a batch, term by term.

        Args:
            frames: x, [B, T, C, H, W] in [0, 1]; with `stored`, those in `decoded` are enough, [B, N, C, H, W].
            noise: noise of the guide's samples.
            weights: weights of the terms. A regulariser of weight 0 is not computed.
            decoded: indices of the frames to reconstruct, [B, N]; None means all.
            seen: number of first frames S from which both codes are inferred, q(i | x_1..S) and q(d | x_1..S); None
                means all. The others have to follow from the codes, as in a rollout.
            stored: what the frame model makes of the frames, if that is known; it is not computed then.
        """
        length = noise.pose.shape[1]
        posterior = self.infer(frames, seen) if stored is None else self.posterior(stored.latents, seen)
        with poutine.trace() as guide:
            poses = self.guide(posterior, noise)
        regularisers = {}
        if weights.dynamics_consistency > 0:
            if stored is None:
                double = self.doubled(posterior.seen.pose_loc, noise.other_static, weights.temperature)
            else:
                double = stored.double[:, :seen]
            regularisers["dynamics_consistency"] = self.dynamics_consistency(posterior, double)
        if weights.pose_distillation > 0:
            regularisers["pose_distillation"] = pose_distillation(poses, posterior.latents)
        with poutine.trace() as model, poutine.replay(trace=guide.trace):
            self.model(frames, weights.temperature, decoded, length)
        values = length * frames[0, 0].numel()
        return loss_terms(guide.trace, model.trace, weights, regularisers=regularisers, clip_values=values)

    def infer(self, frames: Tensor, seen: int | None = None) -> SequencePosterior:
        """Encode frames [B, T, C, H, W] into the parameters of the guide, the codes from the first `seen`, or all."""
        with torch.no_grad():  # The image encoder is frozen.
            latents = self.frame_model.encoder(frames)
        return self.posterior(latents, seen)

    def posterior(self, latents: FrameLatents, seen: int | None = None) -> SequencePosterior:
        """Return the parameters of the guide, with the codes inferred from the first `seen` frames, or all."""
        first = FrameLatents(*(part[:, :seen] for part in latents))
        static, dynamics = self.frame_model.pool_static(first), self.dynamics_encoder(first.pose_loc)
        return SequencePosterior(latents, first, static, dynamics)

    @torch.no_grad()
    def doubled(self, poses: Tensor, noise: Tensor, temperature: float) -> Tensor:
        """Return the poses of x', which are `poses` [B, T, Z] decoded with static codes from the prior: [B, T, Z].

        Args:
            poses: pose locs of the frames that the dynamics code is inferred from.
            noise: standard Normal noise of the static codes, [B, K].
            temperature: temperature of their softmax.
        """
        frame_model = self.frame_model
        static = frame_model.static_code(frame_model.static_prior_scale * noise, temperature)
        decoded = frame_model.likelihood.mean(frame_model.decoder(poses, static))
        poses_of_double: Tensor = frame_model.encoder(decoded).pose_loc
        return poses_of_double

    def dynamics_consistency(self, posterior: SequencePosterior, double: Tensor) -> Tensor:
        """Return the symmetric KL between q(d | x) and q(d | x'): [B], in nats.

        The gradient reaches the dynamics encoder only.

        Args:
            posterior: posterior of the frames x.
            double: poses of x', [B, T, Z]; see `doubled`.
        """
        return symmetric_kl(posterior.dynamics, self.dynamics_encoder(double))

    def guide_chain(self, dynamics: Tensor, length: int, noise: Tensor | None = None) -> GaussianChain:
        """Return q(z_1..T | d) for dynamics codes [B, D], with noise [B, T, Z].

        T = `length` may exceed the length of the clips in training.
        """
        drive = self.combiner.drive(self.dynamics_decoder(dynamics, length), dynamics)

        def transition(previous: Tensor, start: int) -> tuple[Tensor, Tensor]:
            loc, scale = self.combiner(previous, drive[:, start : start + previous.shape[1]])
            return loc, scale

        initial = self.combiner.first_pose.expand(dynamics.shape[0], -1)
        return GaussianChain(transition, initial, length, noise, partial(self.combiner.walk, drive))

    def prior_chain(self, dynamics: Tensor, length: int, noise: Tensor | None = None) -> GaussianChain:
        """Return p(z_1..T | d) for dynamics codes [B, D], with noise [B, T, Z]."""

        def transition(previous: Tensor, start: int) -> tuple[Tensor, Tensor]:
            loc, scale = self.transition(previous, dynamics[:, None].expand(-1, previous.shape[1], -1))
            if start > 0:
                return loc, scale
            # p(z_1) = N(0, 1) does not depend on anything.
            first = torch.zeros_like(loc[:, :1])
            return torch.cat([first, loc[:, 1:]], dim=1), torch.cat([first + 1, scale[:, 1:]], dim=1)

        initial = dynamics.new_zeros(dynamics.shape[0], self.config.pose_size)
        return GaussianChain(transition, initial, length, noise)

    def model(
        self, frames: Tensor, temperature: float, decoded: Tensor | None = None, length: int | None = None
    ) -> None:
        """p(i) p(d) p(z_1..T | d) p(x_1..T | z_1..T, i), with x [B, T, C, H, W] observed.

        With `length`, which is T then, `frames` may be those of `decoded` alone.
        """
        clips, config = len(frames), self.config
        length = length or frames.shape[1]
        static_prior = zero_mean(self.frame_model.static_prior_scale, frames).expand([clips, config.num_experts])
        dynamics_prior = zero_mean(self.dynamics_prior_scale, frames).expand([clips, config.dynamics_size])
        with pyro.plate("clips", clips):
            latent = pyro.sample("static", static_prior.to_event(1))
            dynamics = pyro.sample("dynamics", dynamics_prior.to_event(1))
            poses = pyro.sample("pose", self.prior_chain(dynamics, length))
            self.frame_model.observe(frames, poses, self.frame_model.static_code(latent, temperature), decoded)

    def guide(self, posterior: SequencePosterior, noise: SequenceNoise) -> GaussianChain:
        """q(i | x_1..T) q(d | x_1..T) prod_t q(z_t | z_{t-1}, d). Return the sampled chain of poses."""
        clips, length = noise.pose.shape[:2]
        with pyro.plate("clips", clips):
            pyro.sample("static", ReparameterizedNormal(*posterior.static, noise.static).to_event(1))
            dynamics = pyro.sample("dynamics", ReparameterizedNormal(*posterior.dynamics, noise.dynamics).to_event(1))
            chain = self.guide_chain(dynamics, length, noise.pose)
            pyro.sample("pose", chain)
        return chain


def pose_distillation(poses: GaussianChain, latents: FrameLatents) -> Tensor:
    """Return sum_t KL(q(z_t | z_{t-1}, d) || q(z_t | x_t)) along the sampled path: [B], in nats.

    Args:
        poses: q(z_1..T | d), sampled.
        latents: q(z_t | x_t), of stage 1.
    """
    teacher = Normal(latents.pose_loc, latents.pose_scale, validate_args=False)
    return kl_divergence(poses.conditionals(poses.path), teacher).sum((-2, -1))

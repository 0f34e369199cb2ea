"""Stage 2, the sequence model (`VDSM_Seq` in the release): one dynamics code per clip drives the whole pose sequence.

d ~ N(0, 1/D),  z_1 ~ N(0, 1),  z_t ~ N(GatedTransition(z_{t-1}, d)),  x_t ~ Likelihood(decoder(z_t, s))
q(d | x_1..T),  q(z_t | z_{t-1}, d) = N(Combiner(z_{t-1}, rnn_t(d), d)),  q(i | x_1..T) as in stage 1
"""

from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from vdsm.annealing import Weights
from vdsm.config import ModelConfig
from vdsm.distributions import GaussianChain
from vdsm.encoder import FrameLatents, positive_scale, start_scale_at
from vdsm.feedback import feed_back
from vdsm.frames import FrameModel, draw_frames
from vdsm.loss import LossTerms, ReparameterizedNormal, disagreement, elbo_terms
from vdsm.precision import at_least_fp32, full_precision


class SequenceNoise(NamedTuple):
    """Standard Normal noise of the latents of stage 2."""

    static: Tensor
    """[B, K]"""
    dynamics: Tensor
    """[B, D]"""
    pose: Tensor
    """[B, T, Z]"""
    other: Tensor
    """[B, K], of the static codes that `SequenceModel.disagreement` draws the clips with."""
    decoded: Tensor
    """[B, N], the frames of each clip whose reconstruction is measured."""


class GatedTransition(nn.Module):
    """p(z_t | z_{t-1}, d): a gate between a linear step and a proposed mean."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        pose, inputs, width = config.pose_size, config.pose_size + config.dynamics_size, config.rnn_width
        self.gate = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, pose), nn.Sigmoid())
        self.proposed = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, pose))
        self.step = nn.Linear(pose, pose)
        self.raw_scale = nn.Linear(pose, pose)
        # A linear step that starts as the identity keeps the pose where it was until the gate has learned better.
        nn.init.eye_(self.step.weight)
        nn.init.zeros_(self.step.bias)

    def forward(self, previous: Tensor, dynamics: Tensor) -> tuple[Tensor, Tensor]:
        """Poses [..., Z], dynamics codes [..., D] -> loc and scale of the next poses, each [..., Z]."""
        inputs = torch.cat([previous, dynamics], dim=-1)
        gate, proposed = self.gate(inputs), self.proposed(inputs)
        loc = (1 - gate) * self.step(previous) + gate * proposed
        return loc, positive_scale(self.raw_scale(F.relu(proposed)))


class DynamicsEncoder(nn.Module):
    """q(d | x_1..T): a bidirectional LSTM over the poses of the clip; its final states give the dynamics code."""

    def __init__(self, config: ModelConfig, prior_scale: float) -> None:
        super().__init__()
        layers, width = config.rnn_layers, config.rnn_width
        dropout = config.rnn_dropout if layers > 1 else 0.0
        self.rnn = nn.LSTM(config.pose_size, width, layers, batch_first=True, dropout=dropout, bidirectional=True)
        self.initial = nn.Parameter(torch.zeros(2, 2 * layers, 1, width))
        self.loc = nn.Linear(2 * layers * width, config.dynamics_size)
        self.raw_scale = nn.Linear(2 * layers * width, config.dynamics_size)
        start_scale_at(self.raw_scale, prior_scale)

    def forward(self, poses: Tensor) -> tuple[Tensor, Tensor]:
        """Pose locs [B, T, Z] -> loc and scale of d, each [B, D]."""
        hidden, cell = self.initial.expand(-1, -1, poses.shape[0], -1).contiguous()
        with full_precision(poses):
            _, (final, _) = self.rnn(poses, (hidden, cell))
            features = final.transpose(0, 1).flatten(1)
            return F.leaky_relu(self.loc(features)), positive_scale(self.raw_scale(features))


class DynamicsDecoder(nn.Module):
    """The deterministic path rnn_1..T(d): an LSTM started by d that is fed its own output."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        layers, width = config.rnn_layers, config.rnn_width
        self.state_shape = (2, layers, width)
        self.start = nn.Linear(config.dynamics_size, 2 * layers * width)
        self.first_input = nn.Parameter(torch.zeros(1, 1, width))
        self.rnn = nn.LSTM(width, width, layers, batch_first=True, dropout=config.rnn_dropout if layers > 1 else 0.0)

    def forward(self, dynamics: Tensor, length: int) -> Tensor:
        """Dynamics codes [B, D] -> [B, length, R]."""
        clips = dynamics.shape[0]
        # [B, 2 L R] -> h and c, each [L, B, R].
        with full_precision(dynamics):
            hidden, cell = self.start(dynamics).view(clips, *self.state_shape).permute(1, 2, 0, 3)
            return feed_back(self.rnn, self.first_input[0].expand(clips, -1), hidden, cell, length)


class Combiner(nn.Module):
    """q(z_t | z_{t-1}, d), given rnn_t(d)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.rnn_width
        self.from_dynamics = nn.Linear(width + config.dynamics_size, width)
        self.from_pose = nn.Linear(config.pose_size, width)
        self.loc = nn.Linear(width, config.pose_size)
        self.raw_scale = nn.Linear(width, config.pose_size)
        self.first_pose = nn.Parameter(torch.zeros(1, config.pose_size))

    def drive(self, rnn: Tensor, dynamics: Tensor) -> Tensor:
        """What does not depend on the poses, for all times at once: [B, T, R], [B, D] -> [B, T, R]."""
        code = dynamics[:, None].expand(-1, rnn.shape[1], -1)
        with full_precision(rnn):
            return F.leaky_relu(self.from_dynamics(torch.cat([at_least_fp32(rnn), code], dim=-1)))

    def forward(self, previous: Tensor, drive: Tensor) -> tuple[Tensor, Tensor]:
        """z_{t-1} [..., Z], the drive of time t [..., R] -> loc and scale of z_t, each [..., Z]."""
        combined = 0.5 * (torch.tanh(self.from_pose(previous)) + drive)
        return self.loc(combined), positive_scale(self.raw_scale(combined))


class SequenceModel(nn.Module):
    """Generative model and guide of stage 2, around the trained frame model."""

    def __init__(self, config: ModelConfig, frame_model: FrameModel) -> None:
        super().__init__()
        self.config = config
        self.dynamics_prior_scale = config.dynamics_prior_scale or 1 / config.dynamics_size
        self.frame_model = frame_model
        self.dynamics_encoder = DynamicsEncoder(config, self.dynamics_prior_scale)
        self.dynamics_decoder = DynamicsDecoder(config)
        self.combiner = Combiner(config)
        self.transition = GatedTransition(config)

    def draw_noise(
        self, clips: int, frames: int, generator: torch.Generator, decoded: int | None = None
    ) -> SequenceNoise:
        """Noise for a batch of `clips` clips of `frames` frames, of which `decoded` are reconstructed (none: all), on
        the generator's device."""
        config, device = self.config, generator.device
        sizes = ((config.num_experts,), (config.dynamics_size,), (frames, config.pose_size), (config.num_experts,))
        static, dynamics, pose, other = (
            torch.randn(clips, *size, generator=generator, device=device) for size in sizes
        )
        return SequenceNoise(static, dynamics, pose, other, draw_frames(clips, frames, decoded, generator))

    def forward(self, frames: Tensor, noise: SequenceNoise, weights: Weights) -> LossTerms:
        """The annealed ELBO of frames [B, T, C, H, W] in [0, 1], term by term."""
        arguments = (frames, noise, weights.temperature, weights.agreement > 0, weights.matching > 0)
        return elbo_terms(self.model, self.guide, weights, *arguments, frame_values=frames[0].numel())

    def disagreement(
        self, latents: FrameLatents, own: tuple[Tensor, Tensor], noise: SequenceNoise, temperature: float
    ) -> Tensor:
        """Of a clip and its double on what is done: [B], in nats, the mean of KL(q_1 || q_2) and KL(q_2 || q_1), with
        q_1 = q(d | x) and q_2 = q(d | x'), where x' shows the poses of x with a static code from the prior. Nothing
        but the dynamics encoder has a gradient through it.

        Args:
            latents: of the frames x.
            own: loc and scale of q(d | x), each [B, D].
            noise: that of the static codes from the prior is used.
            temperature: of their softmax.
        """
        frame_model = self.frame_model
        with torch.no_grad():
            static = frame_model.static_code(frame_model.static_prior_scale * noise.other, temperature)
            double = frame_model.likelihood.mean(frame_model.decoder(latents.pose_loc, static))
            seen = frame_model.encoder(double).pose_loc
        return disagreement(own, self.dynamics_encoder(seen))

    def guide_chain(self, dynamics: Tensor, length: int, noise: Tensor | None = None) -> GaussianChain:
        """q(z_1..T | d) of dynamics codes [B, D]; `length` may exceed the trained length. Noise is [B, T, Z]."""
        drive = self.combiner.drive(self.dynamics_decoder(dynamics, length), dynamics)

        def transition(previous: Tensor, start: int) -> tuple[Tensor, Tensor]:
            loc, scale = self.combiner(previous, drive[:, start : start + previous.shape[1]])
            return loc, scale

        initial = self.combiner.first_pose.expand(dynamics.shape[0], -1)
        return GaussianChain(transition, initial, length, noise)

    def prior_chain(self, dynamics: Tensor, length: int, noise: Tensor | None = None) -> GaussianChain:
        """p(z_1..T | d) of dynamics codes [B, D]. Noise is [B, T, Z]."""

        def transition(previous: Tensor, start: int) -> tuple[Tensor, Tensor]:
            loc, scale = self.transition(previous, dynamics[:, None].expand(-1, previous.shape[1], -1))
            if start > 0:
                return loc, scale
            # p(z_1) does not depend on anything.
            first = torch.zeros_like(loc[:, :1])
            return torch.cat([first, loc[:, 1:]], dim=1), torch.cat([first + 1, scale[:, 1:]], dim=1)

        initial = dynamics.new_zeros(dynamics.shape[0], self.config.pose_size)
        return GaussianChain(transition, initial, length, noise)

    def model(self, frames: Tensor, noise: SequenceNoise, temperature: float, *_: bool) -> None:
        """p(i) p(d) p(z_1..T | d) p(x_1..T | z_1..T, i)."""
        clips, length = frames.shape[:2]
        config, zero = self.config, frames.new_zeros(())
        static_prior = dist.Normal(zero, self.frame_model.static_prior_scale).expand([clips, config.num_experts])
        dynamics_prior = dist.Normal(zero, self.dynamics_prior_scale).expand([clips, config.dynamics_size])
        with pyro.plate("clips", clips):
            latent = pyro.sample("static", static_prior.to_event(1))
            dynamics = pyro.sample("dynamics", dynamics_prior.to_event(1))
            poses = pyro.sample("pose", self.prior_chain(dynamics, length))
            static = self.frame_model.static_code(latent, temperature)
            self.frame_model.observe(frames, poses, static, noise.decoded)

    def guide(
        self, frames: Tensor, noise: SequenceNoise, temperature: float, agreeing: bool = False, matching: bool = False
    ) -> None:
        """q(i | x_1..T) q(d | x_1..T) prod_t q(z_t | z_{t-1}, d). Where clips and doubles are `agreeing`, also their
        `disagreement`; where the poses are `matching` those of stage 1, also their `mismatch`, the sum over t of
        KL(q(z_t | z_{t-1}, d) || q(z_t | x_t)) along the path drawn."""
        with torch.no_grad():  # The image encoder is frozen.
            latents = self.frame_model.encoder(frames)
        static_loc, static_scale = self.frame_model.pool_static(latents)
        dynamics_loc, dynamics_scale = self.dynamics_encoder(latents.pose_loc)
        with pyro.plate("clips", frames.shape[0]):
            pyro.sample("static", ReparameterizedNormal(static_loc, static_scale, noise.static).to_event(1))
            dynamics = pyro.sample(
                "dynamics", ReparameterizedNormal(dynamics_loc, dynamics_scale, noise.dynamics).to_event(1)
            )
            chain = self.guide_chain(dynamics, frames.shape[1], noise.pose)
            poses = pyro.sample("pose", chain)
            if matching:
                seen = Normal(latents.pose_loc, latents.pose_scale, validate_args=False)
                mismatch = kl_divergence(chain.conditionals(poses), seen).sum((-2, -1))
                pyro.deterministic("mismatch", mismatch, event_dim=0)
            if agreeing:
                apart = self.disagreement(latents, (dynamics_loc, dynamics_scale), noise, temperature)
                pyro.deterministic("disagreement", apart, event_dim=0)

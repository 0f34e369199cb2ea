"""Stage 1, the frame model (`VDSM_EncDec` in the release): poses independent over time, one static code per clip.

p: i ~ N(0, 1/K),  s = softmax(temperature * i),  z_t ~ N(0, 1),  x_t ~ Likelihood(decoder(z_t, s))
q: q(z_t | x_t),  q(i | x_1..T) = N(loc and scale averaged over the frames)
"""

from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from vdsm.annealing import Weights
from vdsm.config import ModelConfig
from vdsm.decoder import Decoder
from vdsm.distributions import ReparameterizedNormal, symmetric_kl, zero_mean
from vdsm.encoder import FrameLatents, ImageEncoder, positive_scale, start_scale_at
from vdsm.likelihood import Likelihood
from vdsm.loss import LossTerms, loss_terms
from vdsm.motion import motion_distance
from vdsm.precision import full_precision
from vdsm.row_streams import Generator, normal, uniform


class FrameNoise(NamedTuple):
    """Standard Normal noise of the latents of stage 1."""

    static: Tensor
    """[B, K]"""
    pose: Tensor
    """[B, T, Z]"""


class FramePosterior(NamedTuple):
    """Parameters of the guide of stage 1."""

    latents: FrameLatents
    """q(z_t | x_t) and each frame's share of q(i | x_1..T)."""
    static: tuple[Tensor, Tensor]
    """Loc and scale of q(i | x_1..T), each [B, K]."""


class FrameModel(nn.Module):
    """p(i) p(z_1..T) p(x_1..T | z_1..T, i) and its guide q(i | x_1..T) prod_t q(z_t | x_t)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.static_prior_scale = config.static_prior_scale or 1 / config.num_experts
        self.encoder = ImageEncoder(config)
        self.decoder = Decoder(config)
        self.likelihood = Likelihood(config)
        # The K -> K layers on each frame's share of i: the only part of stage 1 that stage 2 keeps training.
        self.static_loc = nn.Linear(config.num_experts, config.num_experts)
        self.static_raw_scale = nn.Linear(config.num_experts, config.num_experts)
        start_scale_at(self.static_raw_scale, self.static_prior_scale)

    def draw_noise(self, clips: int, frames: int, generator: Generator) -> FrameNoise:
        """Return noise for `clips` clips of `frames` frames, on the generator's device."""
        shapes = ((self.config.num_experts,), (frames, self.config.pose_size))
        return FrameNoise(*(normal(generator, clips, *shape) for shape in shapes))

    def forward(self, frames: Tensor, noise: FrameNoise, weights: Weights, decoded: Tensor | None = None) -> LossTerms:
        """Return the loss of a batch, term by term.

        Args:
            frames: x, [B, T, C, H, W] in [0, 1]. For `static_consistency`, the first T / 2 frames are of one clip and
                the others of its partner. For `motion_consistency`, the first two are successive frames.
            noise: noise of the guide's samples.
            weights: weights of the terms. A regulariser of weight 0 is not computed.
            decoded: indices of the frames to reconstruct, [B, N]; None means all.
        """
        posterior = self.infer(frames)
        with poutine.trace() as guide:
            self.guide(posterior, noise)
        regularisers, shares = {}, None
        if weights.static_consistency > 0:
            regularisers["static_consistency"] = divergence = self.static_consistency(posterior.latents)
            if weights.pair_tolerance is not None:
                shares = 1 / (1 + divergence.detach() / weights.pair_tolerance)
        values = frames[0].numel()
        if weights.motion_consistency > 0:
            drawn: Any = {name: guide.trace.nodes[name]["value"] for name in ("static", "pose")}
            # Not a number of nats that the values of a clip share.
            regularisers["motion_consistency"] = values * self.motion_consistency(
                frames, drawn["pose"], drawn["static"], weights.temperature
            )
        with poutine.trace() as model, poutine.replay(trace=guide.trace):
            self.model(frames, weights.temperature, decoded)
        return loss_terms(
            guide.trace, model.trace, weights, regularisers=regularisers, clip_values=values, shares=shares
        )

    def infer(self, frames: Tensor) -> FramePosterior:
        """Encode frames [B, T, C, H, W] into the parameters of the guide."""
        latents = self.encoder(frames)
        return FramePosterior(latents, self.pool_static(latents))

    def pool_static(self, latents: FrameLatents) -> tuple[Tensor, Tensor]:
        """Return loc and scale of q(i | x_1..T), each [B, K], averaged over the clip's frames."""
        with full_precision(latents.static_loc):
            loc = self.static_loc(latents.static_loc).mean(dim=1)
            return loc, positive_scale(self.static_raw_scale(latents.static_raw_scale).mean(dim=1))

    def static_consistency(self, latents: FrameLatents) -> Tensor:
        """Return the symmetric KL between q(i | x_1..T/2) and q(i | x_T/2+1..T): [B], in nats."""
        halves = zip(*(part.chunk(2, dim=1) for part in latents), strict=True)
        first, last = (self.pool_static(FrameLatents(*half)) for half in halves)
        return symmetric_kl(first, last)

    def motion_consistency(self, frames: Tensor, pose: Tensor, static: Tensor, temperature: float) -> Tensor:
        """Return the distance of where x moves and where x' moves: [B], from 0 to 1.

        x' are the poses of the first two frames of x, which are of one clip, decoded with the static code of another
        clip. The static code receives no gradient.

        Args:
            frames: x, [B, T, C, H, W], T at least 2.
            pose: their poses, sampled, [B, T, Z].
            static: i of each clip, sampled, [B, K]. Clips 0 and 1 exchange theirs, and so on; a last one that is left
                takes that of clip 0.
            temperature: temperature of the softmax.
        """
        other = torch.arange(len(static), device=static.device) ^ 1
        other = other.where(other < len(static), 0)
        code = self.static_code(static.detach()[other], temperature)
        decoded = self.likelihood.mean(self.decoder(pose[:, :2], code))
        return motion_distance(frames[:, :2], decoded)

    def static_code(self, latent: Tensor, temperature: float) -> Tensor:
        """Map i [B, K] to s [B, K] by a softmax over the experts of each group."""
        grouped = latent.unflatten(-1, (self.config.static_groups, -1))
        return torch.softmax(temperature * grouped, dim=-1).flatten(-2)

    def observe(self, frames: Tensor, pose: Tensor, static: Tensor, decoded: Tensor | None) -> None:
        """Add the site of p(x_t | z_t, s), over the frames t in `decoded` [B, N]; None means all.

        `frames` are all frames of the poses, or those of `decoded` alone.
        """
        if decoded is not None and decoded.shape[1] < pose.shape[1]:
            rows = torch.arange(len(frames), device=frames.device)[:, None]
            if frames.shape[1] == pose.shape[1]:
                frames = frames[rows, decoded]
            pose = pose[rows, decoded]
        pyro.sample("frames", self.likelihood(self.decoder(pose, static)), obs=frames)

    def model(self, frames: Tensor, temperature: float, decoded: Tensor | None = None) -> None:
        """p(i) p(z_1..T) p(x_1..T | z_1..T, i), with x [B, T, C, H, W] observed."""
        clips, length = frames.shape[:2]
        static_prior = zero_mean(self.static_prior_scale, frames).expand([clips, self.config.num_experts])
        pose_prior = zero_mean(1.0, frames).expand([clips, length, self.config.pose_size])
        with pyro.plate("clips", clips):
            latent = pyro.sample("static", static_prior.to_event(1))
            pose = pyro.sample("pose", pose_prior.to_event(2))
            self.observe(frames, pose, self.static_code(latent, temperature), decoded)

    def guide(self, posterior: FramePosterior, noise: FrameNoise) -> None:
        """q(i | x_1..T) prod_t q(z_t | x_t)."""
        latents = posterior.latents
        with pyro.plate("clips", len(noise.static)):
            pyro.sample("static", ReparameterizedNormal(*posterior.static, noise.static).to_event(1))
            pyro.sample("pose", ReparameterizedNormal(latents.pose_loc, latents.pose_scale, noise.pose).to_event(2))


def draw_frames(clips: int, frames: int, count: int | None, generator: Generator) -> Tensor:
    """Return the indices of the frames of each clip to decode: [B, N], ascending, on the generator's device.

    N = `count` of `frames` without repetition, at random; None, or as many as there are, means all of them, without use
    of the generator.
    """
    every = torch.arange(frames, device=generator.device).expand(clips, -1)
    if count is None or count >= frames:
        return every
    order = uniform(generator, clips, frames).argsort(dim=1)
    return order[:, :count].sort(dim=1).values

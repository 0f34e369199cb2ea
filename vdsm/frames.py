"""Stage 1, the frame model (`VDSM_EncDec` in the release): poses independent over time, one static code per clip.

i ~ N(0, 1/K),  s = softmax(temperature * i),  z_t ~ N(0, 1),  x_t ~ Likelihood(decoder(z_t, s))
q(z_t | x_t),  q(i | x_1..T) = N(mean over t of the frames' votes)
"""

from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from vdsm.annealing import Weights
from vdsm.config import ModelConfig
from vdsm.decoder import Decoder
from vdsm.encoder import FrameLatents, ImageEncoder, positive_scale, start_scale_at
from vdsm.likelihood import Likelihood
from vdsm.loss import LossTerms, ReparameterizedNormal, disagreement, elbo_terms
from vdsm.precision import full_precision


class FrameNoise(NamedTuple):
    """Standard Normal noise of the latents of stage 1."""

    static: Tensor
    """[B, K]"""
    pose: Tensor
    """[B, T, Z]"""
    decoded: Tensor
    """[B, N], the frames of each clip whose reconstruction is measured."""


class FrameModel(nn.Module):
    """Generative model and guide of stage 1."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.static_prior_scale = config.static_prior_scale or 1 / config.num_experts
        self.encoder = ImageEncoder(config)
        self.decoder = Decoder(config)
        self.likelihood = Likelihood(config)
        # The K -> K layer that reads a frame's vote; it is the only part of stage 1 that stage 2 goes on training.
        self.static_loc = nn.Linear(config.num_experts, config.num_experts)
        self.static_raw_scale = nn.Linear(config.num_experts, config.num_experts)
        start_scale_at(self.static_raw_scale, self.static_prior_scale)

    def draw_noise(self, clips: int, frames: int, generator: torch.Generator, decoded: int | None = None) -> FrameNoise:
        """Noise for a batch of `clips` clips of `frames` frames, of which `decoded` are reconstructed (none: all), on
        the generator's device."""
        shapes = ((clips, self.config.num_experts), (clips, frames, self.config.pose_size))
        static, pose = (torch.randn(shape, generator=generator, device=generator.device) for shape in shapes)
        return FrameNoise(static, pose, draw_frames(clips, frames, decoded, generator))

    def forward(self, frames: Tensor, noise: FrameNoise, weights: Weights) -> LossTerms:
        """The annealed ELBO of frames [B, T, C, H, W] in [0, 1], term by term."""
        paired, values = weights.agreement > 0, frames[0].numel()
        arguments = (frames, noise, weights.temperature, paired)
        return elbo_terms(self.model, self.guide, weights, *arguments, frame_values=values)

    def pool_static(self, latents: FrameLatents) -> tuple[Tensor, Tensor]:
        """Parameters of q(i | x_1..T): loc and scale, each [B, K], averaged over the clip's frames."""
        with full_precision(latents.static_loc):
            loc = self.static_loc(latents.static_loc).mean(dim=1)
            return loc, positive_scale(self.static_raw_scale(latents.static_raw_scale).mean(dim=1))

    def disagreement(self, latents: FrameLatents) -> Tensor:
        """Of the first and the last T / 2 frames on who is seen: [B], in nats, the mean of KL(q_1 || q_2) and
        KL(q_2 || q_1), with q_1 and q_2 the static posterior q(i | x) of either half alone."""
        halves = zip(*(part.chunk(2, dim=1) for part in latents), strict=True)
        first, last = (self.pool_static(FrameLatents(*half)) for half in halves)
        return disagreement(first, last)

    def static_code(self, latent: Tensor, temperature: float) -> Tensor:
        """i [B, K] -> s [B, K], a softmax over the experts of each group."""
        grouped = latent.unflatten(-1, (self.config.static_groups, -1))
        return torch.softmax(temperature * grouped, dim=-1).flatten(-2)

    def observe(self, frames: Tensor, pose: Tensor, static: Tensor, decoded: Tensor) -> None:
        """The site of p(x_t | z_t, s), over the `decoded` frames t [B, N] alone."""
        if decoded.shape[1] < frames.shape[1]:
            rows = torch.arange(len(frames), device=frames.device)[:, None]
            frames, pose = frames[rows, decoded], pose[rows, decoded]
        pyro.sample("frames", self.likelihood(self.decoder(pose, static)), obs=frames)

    def model(self, frames: Tensor, noise: FrameNoise, temperature: float, paired: bool = False) -> None:
        """p(i) p(z_1..T) p(x_1..T | z_1..T, i)."""
        clips, length = frames.shape[:2]
        zero = frames.new_zeros(())
        with pyro.plate("clips", clips):
            latent = pyro.sample(
                "static",
                dist.Normal(zero, self.static_prior_scale).expand([clips, self.config.num_experts]).to_event(1),
            )
            pose = pyro.sample(
                "pose", dist.Normal(zero, 1.0).expand([clips, length, self.config.pose_size]).to_event(2)
            )
            self.observe(frames, pose, self.static_code(latent, temperature), noise.decoded)

    def guide(self, frames: Tensor, noise: FrameNoise, temperature: float, paired: bool = False) -> None:
        """q(i | x_1..T) prod_t q(z_t | x_t). Of `paired` clips, each half of the frames, also the `disagreement`."""
        latents = self.encoder(frames)
        static_loc, static_scale = self.pool_static(latents)
        with pyro.plate("clips", frames.shape[0]):
            pyro.sample("static", ReparameterizedNormal(static_loc, static_scale, noise.static).to_event(1))
            pyro.sample("pose", ReparameterizedNormal(latents.pose_loc, latents.pose_scale, noise.pose).to_event(2))
            if paired:
                pyro.deterministic("disagreement", self.disagreement(latents), event_dim=0)


def draw_frames(clips: int, frames: int, decoded: int | None, generator: torch.Generator) -> Tensor:
    """Which frames of each clip are decoded: [B, N], rising, N = `decoded` of `frames` without repetition, or all."""
    every = torch.arange(frames, device=generator.device).expand(clips, -1)
    if decoded is None or decoded == frames:
        return every
    order = torch.rand(clips, frames, generator=generator, device=generator.device).argsort(dim=1)
    return order[:, :decoded].sort(dim=1).values

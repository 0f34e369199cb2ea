"""The two trained stages in use: encode, decode, reconstruct, swap, sample."""

from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from vdsm.backbones import Backbone
from vdsm.config import ModelConfig
from vdsm.frames import FrameModel
from vdsm.refinement import refine_static
from vdsm.sequence import SequenceModel


class Codes(NamedTuple):
    """Posterior means of the latents of a batch of clips."""

    static: Tensor
    """[B, K], points of the simplex (of each simplex, where there are several)."""
    pose: Tensor
    """[B, T, Z]"""
    dynamics: Tensor
    """[B, D]"""


class Disentangler(nn.Module):
    """Both stages of one model. Its methods work without gradients; training calls the stages themselves.

    Call `.eval()` before use, or the dropout of the sequence stage stays on.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.temperature = 10.0
        """Temperature of the static code's softmax: the value at which the annealing ends."""
        self.refinement_steps = 0
        """Gradient steps by which `encode` fits the static code of each clip to it (`vdsm.refinement`); none are taken
        in training."""
        self.refined_by: Literal["dynamics", "poses"] = "dynamics"
        """What draws the clips meanwhile: the dynamics code, as in a swap, or the poses, where stage 2 is untrained."""
        self.sequence_model = SequenceModel(config, FrameModel(config))

    def load_given_weights(self) -> None:
        """Reads the file `encoder_weights` into the image encoder, where the configuration names one: the start of a
        training. Raises ValueError where the file is missing or does not fit."""
        backbone = self.frame_model.encoder.blocks
        if isinstance(backbone, Backbone) and self.config.encoder_weights is not None:
            backbone.load(Path(self.config.encoder_weights))

    @property
    def frame_model(self) -> FrameModel:
        """Stage 1."""
        return self.sequence_model.frame_model

    def prepare_stage(self, number: Literal[1, 2]) -> FrameModel | SequenceModel:
        """Set `requires_grad` on exactly the parameters that a stage trains, and return the stage's module.

        Stage 2 freezes the image encoder and the decoder; the static K -> K layers keep training.
        """
        self.requires_grad_(True)
        if number == 1:
            return self.frame_model
        self.frame_model.encoder.requires_grad_(False)
        self.frame_model.decoder.requires_grad_(False)
        return self.sequence_model

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Codes:
        """Frames [B, T, C, H, W] in [0, 1] -> posterior means, the static one refined where `refinement_steps` says."""
        latents = self.frame_model.encoder(frames)
        static, _ = self.frame_model.pool_static(latents)
        dynamics, _ = self.sequence_model.dynamics_encoder(latents.pose_loc)
        if self.refinement_steps:
            poses = latents.pose_loc if self.refined_by == "poses" else self.poses(dynamics, frames.shape[1])
            static = refine_static(self.frame_model, frames, poses, static, self.temperature, self.refinement_steps)
        return Codes(self.frame_model.static_code(static, self.temperature), latents.pose_loc, dynamics)

    @torch.no_grad()
    def decode(self, pose: Tensor, static: Tensor) -> Tensor:
        """Poses [B, T, Z] and static codes [B, K] -> frames [B, T, C, H, W] in [0, 1]."""
        return self.frame_model.likelihood.mean(self.frame_model.decoder(pose, static))

    @torch.no_grad()
    def reconstruct(self, frames: Tensor) -> Tensor:
        """Frames [B, T, C, H, W] through their own poses and static code (stage 1)."""
        codes = self.encode(frames)
        return self.decode(codes.pose, codes.static)

    @torch.no_grad()
    def poses(self, dynamics: Tensor, length: int) -> Tensor:
        """Dynamics codes [B, D] -> poses [B, length, Z] along the means of q(z_t | z_{t-1}, d) (stage 2)."""
        noise = dynamics.new_zeros(dynamics.shape[0], length, self.config.pose_size)
        return self.sequence_model.guide_chain(dynamics, length, noise).rsample()

    @torch.no_grad()
    def swap(self, *, dynamics_of: Tensor, static_of: Tensor) -> Tensor:
        """The action of one batch of clips performed by the identities of another, both [B, T, C, H, W]."""
        poses = self.poses(self.encode(dynamics_of).dynamics, dynamics_of.shape[1])
        return self.decode(poses, self.encode(static_of).static)

    @torch.no_grad()
    def rollout(self, frames: Tensor, length: int) -> Tensor:
        """The clips [B, T, C, H, W] as stage 2 goes on with them: [B, length, C, H, W], from the start of each clip
        and, where `length` exceeds T or the trained length, past its end."""
        codes = self.encode(frames)
        return self.decode(self.poses(codes.dynamics, length), codes.static)

    @torch.no_grad()
    def interpolate_static(self, first: Tensor, second: Tensor, steps: int) -> Tensor:
        """Static codes [B, K] to static codes [B, K] in equal steps: [B, steps, K], ends included.

        A straight line between two points of a simplex stays on it, and since experts are mixed linearly, it is also
        the straight line between the two decoders. Raises ValueError for fewer than 2 steps.
        """
        if steps < 2:
            raise ValueError(f"steps is {steps}; an interpolation has at least its 2 ends")
        way = torch.linspace(0, 1, steps, dtype=first.dtype, device=first.device)[:, None]
        return (1 - way) * first[:, None] + way * second[:, None]

    @torch.no_grad()
    def sample_prior(self, count: int, length: int, generator: torch.Generator) -> Tensor:
        """Clips [count, length, C, H, W] from the generative model: p(i), p(d), p(z_t | z_{t-1}, d), decoded."""
        weight = self.sequence_model.combiner.first_pose
        static = self.sample_static(count, generator).to(weight)
        dynamics = self.sample_dynamics(count, generator).to(weight)
        shape = (count, length, self.config.pose_size)
        noise = torch.randn(shape, generator=generator, device=generator.device).to(weight)
        return self.decode(self.sequence_model.prior_chain(dynamics, length, noise).rsample(), static)

    @torch.no_grad()
    def sample_static(self, count: int, generator: torch.Generator) -> Tensor:
        """Static codes [count, K] from the prior."""
        noise = torch.randn(count, self.config.num_experts, generator=generator, device=generator.device)
        return self.frame_model.static_code(self.frame_model.static_prior_scale * noise, self.temperature)

    @torch.no_grad()
    def sample_dynamics(self, count: int, generator: torch.Generator) -> Tensor:
        """Dynamics codes [count, D] from the prior."""
        noise = torch.randn(count, self.config.dynamics_size, generator=generator, device=generator.device)
        return self.sequence_model.dynamics_prior_scale * noise

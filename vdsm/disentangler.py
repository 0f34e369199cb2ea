"""Inference with the two trained stages: encode, decode, reconstruct, swap, sample."""

from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from vdsm.backbones import Backbone
from vdsm.code_density import CodeDensity, FittedPriors
from vdsm.config import ModelConfig
from vdsm.frames import FrameModel
from vdsm.refinement import refine_static
from vdsm.sequence import SequenceModel


class Codes(NamedTuple):
    """Posterior means of the latents of a batch of clips."""

    static: Tensor
    """[B, K], points on the simplex (on each simplex, if there are several static groups)."""
    pose: Tensor
    """[B, T, Z]"""
    dynamics: Tensor
    """[B, D]"""


class Disentangler(nn.Module):
    """Both stages of one model. Its methods compute no gradients; training calls the modules of the stages.

    Call `.eval()` before use to switch off the dropout of the sequence stage.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.temperature = 10.0
        """Temperature of the static code's softmax: the value at which the annealing ends."""
        self.fitted_priors: FittedPriors | None = None
        """Densities of the training codes, from which codes are sampled; None means the published priors."""
        self.refinement_steps = 0
        """Gradient steps with which `encode` refines the static code of each clip (`vdsm.refinement`)."""
        self.refined_by: Literal["dynamics", "poses"] = "dynamics"
        """Source of the poses during refinement: the dynamics code, as in a swap, or the encoder, if stage 2 is
        untrained."""
        self.sequence_model = SequenceModel(config, FrameModel(config))

    def load_given_weights(self) -> None:
        """Load the file `encoder_weights` into the image encoder, if the configuration names one, to start a run.

        Raises:
            ValueError: the file is missing or does not fit.
        """
        backbone = self.frame_model.encoder.blocks
        if isinstance(backbone, Backbone) and self.config.encoder_weights is not None:
            backbone.load(Path(self.config.encoder_weights).expanduser())

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
        """Encode frames [B, T, C, H, W] in [0, 1] as posterior means, the static one refined by `refinement_steps`."""
        latents = self.frame_model.encoder(frames)
        static, _ = self.frame_model.pool_static(latents)
        dynamics, _ = self.sequence_model.dynamics_encoder(latents.pose_loc)
        if self.refinement_steps:
            poses = latents.pose_loc if self.refined_by == "poses" else self.poses(dynamics, frames.shape[1])
            static = refine_static(self.frame_model, frames, poses, static, self.temperature, self.refinement_steps)
        return Codes(self.frame_model.static_code(static, self.temperature), latents.pose_loc, dynamics)

    @torch.no_grad()
    def decode(self, pose: Tensor, static: Tensor) -> Tensor:
        """Decode poses [B, T, Z] and static codes [B, K] to frames [B, T, C, H, W] in [0, 1]."""
        return self.frame_model.likelihood.mean(self.frame_model.decoder(pose, static))

    @torch.no_grad()
    def reconstruct(self, frames: Tensor) -> Tensor:
        """Decode frames [B, T, C, H, W] from their own poses and static code (stage 1)."""
        codes = self.encode(frames)
        return self.decode(codes.pose, codes.static)

    @torch.no_grad()
    def poses(self, dynamics: Tensor, length: int) -> Tensor:
        """Generate poses [B, length, Z] from dynamics codes [B, D] along the means of q(z_t | z_{t-1}, d) (stage 2)."""
        noise = dynamics.new_zeros(dynamics.shape[0], length, self.config.pose_size)
        return self.sequence_model.guide_chain(dynamics, length, noise).rsample()

    @torch.no_grad()
    def swap(self, *, dynamics_of: Tensor, static_of: Tensor) -> Tensor:
        """Decode the action of one batch of clips with the identities of another, both [B, T, C, H, W]."""
        poses = self.poses(self.encode(dynamics_of).dynamics, dynamics_of.shape[1])
        return self.decode(poses, self.encode(static_of).static)

    @torch.no_grad()
    def rollout(self, frames: Tensor, length: int) -> Tensor:
        """Generate clips [B, length, C, H, W] from the codes of clips [B, T, C, H, W] by stage 2.

        They begin with the start of each clip. If `length` exceeds T or the trained length, they continue past its end.
        """
        codes = self.encode(frames)
        return self.decode(self.poses(codes.dynamics, length), codes.static)

    @torch.no_grad()
    def interpolate_static(self, first: Tensor, second: Tensor, steps: int) -> Tensor:
        """Interpolate linearly between static codes [B, K] in equal steps: [B, steps, K], ends included.

        The line between two points of a simplex stays on it. Since experts are blended linearly, it is also the line
        between the two decoders.

        Raises:
            ValueError: fewer than 2 steps.
        """
        if steps < 2:
            raise ValueError(f"steps is {steps}; an interpolation needs at least 2, its ends")
        position = torch.linspace(0, 1, steps, dtype=first.dtype, device=first.device)[:, None]
        return (1 - position) * first[:, None] + position * second[:, None]

    @property
    def _weight(self) -> Tensor:
        """Any parameter, for its dtype and device."""
        return self.sequence_model.combiner.first_pose

    @property
    def _fitted_dynamics(self) -> CodeDensity | None:
        """The fitted prior of the dynamics code, if there is one."""
        return None if self.fitted_priors is None else self.fitted_priors.dynamics

    @torch.no_grad()
    def sample_prior(self, count: int, length: int, generator: torch.Generator) -> Tensor:
        """Sample clips [count, length, C, H, W], all codes from the prior.

        The published model draws p(i), p(d) and p(z_t | z_{t-1}, d). The poses of a fitted dynamics code are those that
        it drives in a swap.
        """
        weight = self._weight
        static = self.sample_static(count, generator).to(weight)
        dynamics = self.sample_dynamics(count, generator).to(weight)
        if self._fitted_dynamics is not None:
            return self.decode(self.poses(dynamics, length), static)
        shape = (count, length, self.config.pose_size)
        noise = torch.randn(shape, generator=generator, device=generator.device).to(weight)
        return self.decode(self.sequence_model.prior_chain(dynamics, length, noise).rsample(), static)

    @torch.no_grad()
    def sample_static(self, count: int, generator: torch.Generator) -> Tensor:
        """Sample static codes [count, K] from the prior, on the model's device."""
        if self.fitted_priors is not None:
            latent = self.fitted_priors.static.sample(count, generator)
        else:
            noise = torch.randn(count, self.config.num_experts, generator=generator, device=generator.device)
            latent = self.frame_model.static_prior_scale * noise
        return self.frame_model.static_code(latent.to(self._weight.device), self.temperature)

    @torch.no_grad()
    def sample_dynamics(self, count: int, generator: torch.Generator) -> Tensor:
        """Sample dynamics codes [count, D] from the prior, on the model's device."""
        if self._fitted_dynamics is not None:
            return self._fitted_dynamics.sample(count, generator).to(self._weight.device)
        noise = torch.randn(count, self.config.dynamics_size, generator=generator, device=generator.device)
        return (self.sequence_model.dynamics_prior_scale * noise).to(self._weight.device)

"""The baseline of `step.py`: the same model and loss, one clip after another.

As in the release code, nothing is batched over clips: each clip has its own blend of the experts' kernels, every layer
runs on what belongs to one clip, and in stage 2 the poses, their priors and KL terms come one time step of one clip
after another. Parameters and noise are those of the batched model, so that the loss must be the same.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from vdsm.annealing import Weights
from vdsm.decoder import SLOPE, Decoder
from vdsm.elbo import Terms
from vdsm.frames import FrameModel, FrameNoise
from vdsm.sequence import SequenceModel, SequenceNoise


def blend(parameters: Tensor, static: Tensor) -> Tensor:
    """[K, ...] and a static code [K] -> sum_k s_k W_k, one weighted copy of all experts, summed."""
    return (static[:, None] * parameters).sum(0)


def decode(decoder: Decoder, poses: Tensor, static: Tensor) -> Tensor:
    """Poses [T, Z] and the static code [K] of one clip -> logits [T, C, H, W]."""
    x = torch.cat([poses, static.expand(len(poses), -1)], dim=-1)[..., None, None]
    layers: Any = decoder.layers
    for index, layer in enumerate(layers):
        x = x if index == 0 else F.leaky_relu(x, SLOPE)
        kernel, bias = blend(layer.kernels, static).view(layer.shape), blend(layer.biases, static)
        x = F.conv_transpose2d(x, kernel, bias, layer.stride, 0 if layer.stride == 1 else 1)
    return x


def sample(normal: Normal, noise: Tensor) -> Tensor:
    """A reparameterised sample."""
    return normal.loc + normal.scale * noise


class Sums:
    """Sums over clips, in nats."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def add(self, name: str, value: Tensor) -> None:
        """Adds the sum of the elements of `value`."""
        self.sums[name] = self.sums.get(name, torch.zeros(())) + value.sum()

    def terms(self, weights: Weights, values: int) -> Terms:
        """As the batched model gives them; `values` in the whole batch."""
        means = {name: total / values for name, total in self.sums.items()}
        zero = torch.zeros(())
        loss = means["reconstruction"]
        for name in ("static", "pose", "dynamics"):
            loss = loss + getattr(weights, name) * means.get(name, zero)
        return Terms(loss, means["reconstruction"], means["static"], means["pose"], means.get("dynamics", zero))


class LoopedFrames(nn.Module):
    """Stage 1, clip by clip."""

    def __init__(self, model: FrameModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor, noise: FrameNoise, weights: Weights) -> Terms:
        """As `FrameModel.forward`."""
        model, sums = self.model, Sums()
        for clip, static_noise, pose_noise in zip(frames, *noise, strict=True):
            latents = model.encoder(clip[None])
            static_q = Normal(*(part[0] for part in model.pool_static(latents)))
            pose_q = Normal(latents.pose_loc[0], latents.pose_scale[0])
            sums.add("static", kl_divergence(static_q, Normal(0.0, model.static_prior_scale)))
            sums.add("pose", kl_divergence(pose_q, Normal(0.0, 1.0)))
            static = model.static_code(sample(static_q, static_noise), weights.temperature)
            logits = decode(model.decoder, sample(pose_q, pose_noise), static)
            sums.add("reconstruction", F.binary_cross_entropy_with_logits(logits, clip, reduction="sum"))
        return sums.terms(weights, frames.numel())


class LoopedSequence(nn.Module):
    """Stage 2, clip by clip and time step by time step."""

    def __init__(self, model: SequenceModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor, noise: SequenceNoise, weights: Weights) -> Terms:
        """As `SequenceModel.forward`."""
        sums = Sums()
        for clip, *clip_noise in zip(frames, *noise, strict=True):
            self._add_clip(sums, clip, SequenceNoise(*clip_noise), weights.temperature)
        return sums.terms(weights, frames.numel())

    def _add_clip(self, sums: Sums, clip: Tensor, noise: SequenceNoise, temperature: float) -> None:
        model, frame_model = self.model, self.model.frame_model
        with torch.no_grad():
            latents = frame_model.encoder(clip[None])
        static_q = Normal(*(part[0] for part in frame_model.pool_static(latents)))
        dynamics_q = Normal(*(part[0] for part in model.dynamics_encoder(latents.pose_loc)))
        sums.add("static", kl_divergence(static_q, Normal(0.0, frame_model.static_prior_scale)))
        sums.add("dynamics", kl_divergence(dynamics_q, Normal(0.0, model.dynamics_prior_scale)))
        static = frame_model.static_code(sample(static_q, noise.static), temperature)
        dynamics = sample(dynamics_q, noise.dynamics)
        drive = model.combiner.drive(model.dynamics_decoder(dynamics[None], len(clip)), dynamics[None])[0]
        pose, poses = model.combiner.first_pose[0], []
        for time in range(len(clip)):
            pose_q = Normal(*model.combiner(pose, drive[time]))
            pose_p = Normal(*model.transition(pose, dynamics)) if time > 0 else Normal(0.0, 1.0)
            sums.add("pose", kl_divergence(pose_q, pose_p))
            pose = sample(pose_q, noise.pose[time])
            poses.append(pose)
        logits = decode(frame_model.decoder, torch.stack(poses), static)
        sums.add("reconstruction", F.binary_cross_entropy_with_logits(logits, clip, reduction="sum"))

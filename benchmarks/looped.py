"""The baseline of `step.py`: the same model and loss, computed in the manner of the release code.

The image encoder and the bidirectional LSTM process the batch at once. Everything else runs clip by clip: each clip
decodes its frames with its own blend of the experts' kernels. In stage 2 each pose is a Pyro site of its own, and the
decoding LSTM, the combiner and the transition run one time step of one clip at a time. In stage 2 the release also
computes and accumulates gradients of the image networks, although its optimiser does not have their parameters;
`image_gradients` controls whether the baseline does so too.

Parameters and noise are those of the batched model. KL terms are analytic as in it (the release samples them), so the
loss must be the same.
"""

from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro import poutine
from pyro.infer import TraceMeanField_ELBO
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from vdsm.annealing import Weights
from vdsm.decoder import SLOPE, Decoder
from vdsm.distributions import ReparameterizedNormal
from vdsm.frames import FrameModel, FrameNoise
from vdsm.sequence import SequenceModel, SequenceNoise


class Loss(NamedTuple):
    """The part of `LossTerms` that the benchmark reads."""

    loss: Tensor


def blend(parameters: Tensor, static: Tensor) -> Tensor:
    """Return sum_k s_k W_k for parameters [K, ...] and a static code [K], by a weighted copy of all experts."""
    return (static[:, None] * parameters).sum(0)


def decode(decoder: Decoder, poses: Tensor, static: Tensor) -> Tensor:
    """Decode poses [T, Z] and the static code [K] of one clip to logits [T, C, H, W]."""
    x = torch.cat([poses, static.expand(len(poses), -1)], dim=-1)[..., None, None]
    layers: Any = decoder.layers
    for index, layer in enumerate(layers):
        x = x if index == 0 else F.leaky_relu(x, SLOPE)
        kernel, bias = blend(layer.kernels, static).view(layer.shape), blend(layer.biases, static)
        x = F.conv_transpose2d(x, kernel, bias, layer.stride, 0 if layer.stride == 1 else 1)
    return x


class LoopedFrames(nn.Module):
    """Stage 1, decoding clip by clip."""

    def __init__(self, model: FrameModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor, noise: FrameNoise, weights: Weights) -> Loss:
        """Return the loss of a batch, as `FrameModel.forward` does."""
        model = self.model
        latents = model.encoder(frames)
        static_q, pose_q = Normal(*model.pool_static(latents)), Normal(latents.pose_loc, latents.pose_scale)
        static = model.static_code(static_q.loc + static_q.scale * noise.static, weights.temperature)
        poses = pose_q.loc + pose_q.scale * noise.pose
        logits = torch.stack([decode(model.decoder, *clip) for clip in zip(poses, static, strict=True)])
        loss = F.binary_cross_entropy_with_logits(logits, frames, reduction="sum")
        loss = loss + weights.static * kl_divergence(static_q, Normal(0.0, model.static_prior_scale)).sum()
        loss = loss + weights.pose * kl_divergence(pose_q, Normal(0.0, 1.0)).sum()
        return Loss(loss / frames.numel())


class LoopedSequence(nn.Module):
    """Stage 2, with poses computed one time step of one clip at a time, decoding clip by clip."""

    def __init__(self, model: SequenceModel, *, image_gradients: bool) -> None:
        super().__init__()
        self.networks = model
        self.image_gradients = image_gradients
        if image_gradients:
            model.frame_model.requires_grad_(True)
        self.elbo = TraceMeanField_ELBO().differentiable_loss

    def forward(self, frames: Tensor, noise: SequenceNoise, weights: Weights) -> Loss:
        """Return the loss of a batch, as `SequenceModel.forward` does."""
        return Loss(self.elbo(self.model, self.guide, frames, noise, weights) / frames.numel())

    def model(self, frames: Tensor, noise: SequenceNoise, weights: Weights) -> None:
        """p(i) p(d) p(z_1..T | d) p(x_1..T | z_1..T, i)."""
        networks, (clips, length) = self.networks, frames.shape[:2]
        config, frame_model, zero = networks.config, networks.frame_model, frames.new_zeros(())
        static_p = dist.Normal(zero, frame_model.static_prior_scale).expand([clips, config.num_experts])
        dynamics_p = dist.Normal(zero, networks.dynamics_prior_scale).expand([clips, config.dynamics_size])
        with pyro.plate("clips", clips):
            with poutine.scale(scale=weights.static):
                latent = pyro.sample("static", static_p.to_event(1))
            with poutine.scale(scale=weights.dynamics):
                dynamics = pyro.sample("dynamics", dynamics_p.to_event(1))
        poses = frames.new_zeros(clips, length, config.pose_size)
        for clip in pyro.plate("each clip", clips):
            pose = frames.new_zeros(config.pose_size)
            for time in pyro.markov(range(length)):
                pose_p = dist.Normal(zero, 1.0).expand([config.pose_size])
                if time > 0:
                    pose_p = dist.Normal(*networks.transition(pose, dynamics[clip]))
                with poutine.scale(scale=weights.pose):
                    pose = pyro.sample(f"pose of {clip} at {time}", pose_p.to_event(1))
                poses[clip, time] = pose
        static = frame_model.static_code(latent, weights.temperature)
        logits = torch.stack([decode(frame_model.decoder, *clip) for clip in zip(poses, static, strict=True)])
        with pyro.plate("clips of frames", clips):
            pyro.sample("frames", dist.Bernoulli(logits=logits, validate_args=False).to_event(4), obs=frames)

    def guide(self, frames: Tensor, noise: SequenceNoise, weights: Weights) -> None:
        """q(i | x_1..T) q(d | x_1..T) prod_t q(z_t | z_{t-1}, d)."""
        networks, (clips, length) = self.networks, frames.shape[:2]
        combiner, lstm = networks.combiner, networks.dynamics_decoder
        with torch.set_grad_enabled(self.image_gradients and torch.is_grad_enabled()):
            latents = networks.frame_model.encoder(frames)
        static_q = ReparameterizedNormal(*networks.frame_model.pool_static(latents), noise.static)
        dynamics_q = ReparameterizedNormal(*networks.dynamics_encoder(latents.pose_loc), noise.dynamics)
        with pyro.plate("clips", clips):
            with poutine.scale(scale=weights.static):
                pyro.sample("static", static_q.to_event(1))
            with poutine.scale(scale=weights.dynamics):
                dynamics = pyro.sample("dynamics", dynamics_q.to_event(1))
        for clip in pyro.plate("each clip", clips):
            code = dynamics[clip : clip + 1]
            hidden, cell = lstm.start(code).view(1, *lstm.state_shape).permute(1, 2, 0, 3).contiguous()
            output, pose = lstm.first_input, combiner.first_pose[0]
            for time in pyro.markov(range(length)):
                output, (hidden, cell) = lstm.rnn(output, (hidden, cell))
                loc, scale = combiner(pose, combiner.drive(output, code)[0, 0])
                pose_q = ReparameterizedNormal(loc, scale, noise.pose[clip, time])
                with poutine.scale(scale=weights.pose):
                    pose = pyro.sample(f"pose of {clip} at {time}", pose_q.to_event(1))

"""Stage 2 of VDSM from its equations, one clip and one time step at a time (see `oracle`)."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tests.vdsm.oracle import (
    Clip,
    Gauss,
    Parameters,
    decode,
    draw,
    encode,
    estimated_likelihood,
    leaky,
    linear,
    pool,
    positive,
    sigmoid,
    site,
    softmax_groups,
    static_prior,
    symmetric_kl,
    total,
)

if TYPE_CHECKING:
    from vdsm.config import ModelConfig


def sequence_clip(
    p: Parameters, config: "ModelConfig", frames: Tensor, noise: dict[str, Tensor], decoded: list[int], tau: float,
    seen: int | None = None,
) -> Clip:  # fmt: skip
    """Compute stage 2 of one clip [T, C, H, W]; noise: static [K], dynamics [D], pose [T, Z]; decoded: times.

    `seen`: number of first frames that give the codes; None means all.
    """
    frame_p = {name.removeprefix("frame_model."): value for name, value in p.items() if name.startswith("frame_model.")}
    encoded = [encode(frame_p, config, frame) for frame in frames[:seen]]
    static_q = pool(frame_p, encoded)
    latent = draw(static_q, noise["static"])
    dynamics_q = encode_dynamics(p, config, [pose_q.loc for pose_q, _, _ in encoded])
    dynamics = draw(dynamics_q, noise["dynamics"])
    width = config.dynamics_prior_scale or 1 / config.dynamics_size
    dynamics_prior = Gauss(torch.zeros_like(dynamics), torch.full_like(dynamics, width))
    sites = {
        "static": site(static_q, static_prior(config), latent),
        "dynamics": site(dynamics_q, dynamics_prior, dynamics),
    }
    poses, steps = [], []
    previous = p["combiner.first_pose"][0]
    for time, rnn in enumerate(decode_dynamics(p, config, dynamics, len(frames))):
        pose_q = combine(p, previous, rnn, dynamics)
        pose = draw(pose_q, noise["pose"][time])
        if time == 0:
            pose_p = Gauss(torch.zeros_like(pose), torch.ones_like(pose))
        else:
            pose_p = transition(p, previous, dynamics)
        steps.append(site(pose_q, pose_p, pose))
        poses.append(pose)
        previous = pose
    sites["pose"] = total(steps)
    static = softmax_groups(config, latent, tau)
    return Clip(estimated_likelihood(frame_p, config, frames, poses, static, decoded), sites)


def dynamics_consistency(p: Parameters, config: "ModelConfig", frames: Tensor, other: Tensor, tau: float) -> Tensor:
    """Compare q(d) of one clip and of its poses decoded with a static code from the prior, with noise `other` [K]."""
    frame_p = {name.removeprefix("frame_model."): value for name, value in p.items() if name.startswith("frame_model.")}
    static = softmax_groups(config, draw(static_prior(config), other), tau)
    poses, other_poses = [], []
    for frame in frames:
        poses.append(encode(frame_p, config, frame)[0].loc)
        decoded = decode(frame_p, config, poses[-1], static).detach()
        other_poses.append(encode(frame_p, config, decoded)[0].loc)
    return symmetric_kl(encode_dynamics(p, config, poses), encode_dynamics(p, config, other_poses))


def pose_distillation(
    p: Parameters, config: "ModelConfig", frames: Tensor, noise: dict[str, Tensor], seen: int | None = None
) -> Tensor:
    """Sum KL(q(z_t | z_{t-1}, d) || q(z_t | x_t)) over the frames of one clip, along the sampled path."""
    frame_p = {name.removeprefix("frame_model."): value for name, value in p.items() if name.startswith("frame_model.")}
    teacher = [encode(frame_p, config, frame)[0] for frame in frames]
    dynamics = draw(encode_dynamics(p, config, [pose_q.loc for pose_q in teacher[:seen]]), noise["dynamics"])
    kl, previous = torch.zeros((), dtype=torch.float64), p["combiner.first_pose"][0]
    for time, rnn in enumerate(decode_dynamics(p, config, dynamics, len(frames))):
        pose_q = combine(p, previous, rnn, dynamics)
        kl = kl + site(pose_q, Gauss(teacher[time].loc.detach(), teacher[time].scale.detach()), pose_q.loc).kl
        previous = draw(pose_q, noise["pose"][time])
    return kl


def lstm_step(p: Parameters, rnn: str, layer: str, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Compute one step of one layer: input, forget, cell and output gates."""
    parts = p[f"{rnn}.weight_ih_{layer}"] @ x + p[f"{rnn}.bias_ih_{layer}"]
    parts = parts + p[f"{rnn}.weight_hh_{layer}"] @ h + p[f"{rnn}.bias_hh_{layer}"]
    i, f, g, o = (parts[n * len(h) : (n + 1) * len(h)] for n in range(4))
    c = sigmoid(f) * c + sigmoid(i) * torch.tanh(g)
    return sigmoid(o) * torch.tanh(c), c


def encode_dynamics(p: Parameters, config: "ModelConfig", poses: list[Tensor]) -> Gauss:
    """Return q(d | x_1..T), from the final states of a bidirectional LSTM over the pose locs, all layers."""
    inputs, finals = poses, []
    for layer in range(config.rnn_layers):
        directions = []
        for backward in (False, True):
            h, c = p["dynamics_encoder.initial"][:, 2 * layer + backward, 0]
            outputs = []
            for x in reversed(inputs) if backward else inputs:
                name = f"l{layer}_reverse" if backward else f"l{layer}"
                h, c = lstm_step(p, "dynamics_encoder.rnn", name, x, h, c)
                outputs.append(h)
            finals.append(h)
            directions.append(outputs[::-1] if backward else outputs)
        inputs = [torch.cat(both) for both in zip(*directions, strict=True)]
    features = torch.cat(finals)
    loc = leaky(linear(p, "dynamics_encoder.loc", features), 0.01)
    return Gauss(loc, positive(linear(p, "dynamics_encoder.raw_scale", features)))


def decode_dynamics(p: Parameters, config: "ModelConfig", dynamics: Tensor, length: int) -> list[Tensor]:
    """Return rnn_1..T(d): an LSTM whose initial state depends on d, fed its own output."""
    start = linear(p, "dynamics_decoder.start", dynamics).reshape(2, config.rnn_layers, config.rnn_width)
    states = [(start[0, layer], start[1, layer]) for layer in range(config.rnn_layers)]
    x, outputs = p["dynamics_decoder.first_input"][0, 0], []
    for _ in range(length):
        for layer in range(config.rnn_layers):
            states[layer] = lstm_step(p, "dynamics_decoder.rnn", f"l{layer}", x, *states[layer])
            x = states[layer][0]
        outputs.append(x)
    return outputs


def combine(p: Parameters, previous: Tensor, rnn: Tensor, dynamics: Tensor) -> Gauss:
    """Return q(z_t | z_{t-1}, d)."""
    h = leaky(linear(p, "combiner.from_dynamics", torch.cat([rnn, dynamics])), 0.01)
    c = 0.5 * (torch.tanh(linear(p, "combiner.from_pose", previous)) + h)
    return Gauss(linear(p, "combiner.loc", c), positive(linear(p, "combiner.raw_scale", c)))


def transition(p: Parameters, previous: Tensor, dynamics: Tensor) -> Gauss:
    """Return p(z_t | z_{t-1}, d)."""
    inputs = torch.cat([previous, dynamics])
    gate = sigmoid(linear(p, "transition.gate.2", leaky(linear(p, "transition.gate.0", inputs), 0.0)))
    proposed = linear(p, "transition.proposed.2", leaky(linear(p, "transition.proposed.0", inputs), 0.0))
    loc = (1 - gate) * linear(p, "transition.step", previous) + gate * proposed
    return Gauss(loc, positive(linear(p, "transition.raw_scale", leaky(proposed, 0.0))))

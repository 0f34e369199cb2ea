"""VDSM from its equations, one clip, one frame, one expert at a time: stage 1 and the parts shared with stage 2.

Slow and obvious on purpose, and independent of the package's code: it reads parameters and settings by name and
computes with elementary operations. Results are per clip, in nats, and not normalised.
"""

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from vdsm.config import ModelConfig

Parameters = dict[str, Tensor]
SMALLEST_SCALE = 1e-4


class Site(NamedTuple):
    """One latent of one clip, sampled by the guide: log q, log p and KL(q || p)."""

    guide: Tensor
    model: Tensor
    kl: Tensor


class Clip(NamedTuple):
    """The contribution of one clip."""

    likelihood: Tensor
    """log p(x_1..T | ...)"""
    sites: dict[str, Site]


class Gauss(NamedTuple):
    """A Normal with independent elements."""

    loc: Tensor
    scale: Tensor


def loss(clips: list[Clip], weights: dict[str, float], values: int) -> Tensor:
    """Average -(log-likelihood) + weighted KLs over the clips, per pixel value."""
    total = torch.zeros((), dtype=torch.float64)
    for clip in clips:
        total = total - clip.likelihood
        for name, site in clip.sites.items():
            total = total + weights[name] * site.kl
    return total / len(clips) / values


def frame_clip(
    p: Parameters, config: "ModelConfig", frames: Tensor, noise: dict[str, Tensor], decoded: list[int], tau: float
) -> Clip:
    """Compute stage 1 of one clip [T, C, H, W]; noise: static [K], pose [T, Z]; decoded: times to reconstruct."""
    encoded = [encode(p, config, frame) for frame in frames]
    static_q = pool(p, encoded)
    latent = draw(static_q, noise["static"])
    sites = {"static": site(static_q, static_prior(config), latent)}
    standard = Gauss(torch.zeros(config.pose_size).double(), torch.ones(config.pose_size).double())
    poses, steps = [], []
    for (pose_q, _, _), eps in zip(encoded, noise["pose"], strict=True):
        poses.append(draw(pose_q, eps))
        steps.append(site(pose_q, standard, poses[-1]))
    sites["pose"] = total(steps)
    static = softmax_groups(config, latent, tau)
    return Clip(estimated_likelihood(p, config, frames, poses, static, decoded), sites)


def static_consistency(p: Parameters, config: "ModelConfig", frames: Tensor) -> Tensor:
    """Compare the static posteriors of the two halves of a sequence, each from one clip of a pair."""
    encoded = [encode(p, config, frame) for frame in frames]
    half = len(encoded) // 2
    return symmetric_kl(pool(p, encoded[:half]), pool(p, encoded[half:]))


def motion_consistency(
    p: Parameters,
    config: "ModelConfig",
    frames: Tensor,
    noise: dict[str, Tensor],
    other: tuple[Tensor, dict[str, Tensor]],
    tau: float,
) -> Tensor:
    """Compare where one clip moves and where its poses move with the static code of `other`: its frames and noise."""
    with torch.no_grad():
        latent = draw(pool(p, [encode(p, config, frame) for frame in other[0]]), other[1]["static"])
    static = softmax_groups(config, latent, tau)
    moved = []
    for frame, eps in zip(frames[:2], noise["pose"][:2], strict=True):
        pose = draw(encode(p, config, frame)[0], eps)
        moved.append(decode(p, config, pose, static))
    first, second = cell_changes(frames[0], frames[1]), cell_changes(moved[0], moved[1])
    return 1 - sum(torch.sqrt(one / sum(first) * other / sum(second)) for one, other in zip(first, second, strict=True))


def cell_changes(before: Tensor, after: Tensor) -> list[Tensor]:
    """Average the change between two frames [C, H, W] over each of 8x8 cells; half an 8-bit step more."""
    side = before.shape[-1] // 8
    changes = []
    for top in range(0, before.shape[-2], side):
        for left in range(0, before.shape[-1], side):
            cell = (slice(None), slice(top, top + side), slice(left, left + side))
            changes.append(torch.abs(after[cell] - before[cell]).mean() + 0.002)
    return changes


def symmetric_kl(first: Gauss, last: Gauss) -> Tensor:
    """Return the mean of KL(first || last) and KL(last || first)."""
    zero = torch.zeros_like(first.loc)
    return (site(first, last, zero).kl + site(last, first, zero).kl) / 2


def draw(q: Gauss, noise: Tensor) -> Tensor:
    """Return loc + scale * noise."""
    return q.loc + q.scale * noise


def log_normal(x: Tensor, normal: Gauss) -> Tensor:
    """Sum log N(x | loc, scale) over the elements."""
    z = (x - normal.loc) / normal.scale
    return (-0.5 * z * z - torch.log(normal.scale) - 0.5 * math.log(2 * math.pi)).sum()


def site(q: Gauss, p: Gauss, value: Tensor) -> Site:
    """Return the log-densities of a value and the analytic KL(q || p)."""
    variances = q.scale**2 / p.scale**2
    kl = 0.5 * (variances + (q.loc - p.loc) ** 2 / p.scale**2 - 1 - torch.log(variances))
    return Site(log_normal(value, q), log_normal(value, p), kl.sum())


def total(steps: list[Site]) -> Site:
    """Return the site of a path, the sum over its steps."""
    first = steps[0]
    for step in steps[1:]:
        first = Site(first.guide + step.guide, first.model + step.model, first.kl + step.kl)
    return first


def linear(p: Parameters, name: str, x: Tensor) -> Tensor:
    """Return W x + b."""
    return (p[f"{name}.weight"] * x[None, :]).sum(1) + p[f"{name}.bias"]


def leaky(x: Tensor, slope: float) -> Tensor:
    """Return x above 0, slope * x below."""
    return torch.where(x > 0, x, slope * x)


def positive(x: Tensor) -> Tensor:
    """Return softplus, bounded away from zero."""
    return torch.log(1 + torch.exp(x)) + SMALLEST_SCALE


def sigmoid(x: Tensor) -> Tensor:
    """Return 1 / (1 + e^-x)."""
    return 1 / (1 + torch.exp(-x))


def static_prior(config: "ModelConfig") -> Gauss:
    """Return N(0, 1/K), where 1/K is the scale."""
    scale = config.static_prior_scale or 1 / config.num_experts
    return Gauss(
        torch.zeros(config.num_experts).double(), torch.full((config.num_experts,), scale, dtype=torch.float64)
    )


def softmax_groups(config: "ModelConfig", latent: Tensor, tau: float) -> Tensor:
    """Return the softmax of tau * i over each of the equally large groups of experts."""
    size = config.num_experts // config.static_groups
    groups = []
    for start in range(0, config.num_experts, size):
        powers = torch.exp(tau * latent[start : start + size])
        groups.append(powers / powers.sum())
    return torch.cat(groups)


def encode(p: Parameters, config: "ModelConfig", frame: Tensor) -> tuple[Gauss, Tensor, Tensor]:
    """Return q(z_t | x_t) and the frame's share of loc and scale of i, for one frame [C, H, W]."""
    numbers = sorted(int(name.split(".")[2]) for name in p if name.startswith("encoder.blocks.") and "weight" in name)
    x = frame[None]
    for number in numbers:
        block = f"encoder.blocks.{number}"
        stride = {"blur": 1, "stride": 2}[config.encoder_downsampling]
        x = F.conv2d(x, p[f"{block}.weight"], p[f"{block}.bias"], stride=stride, padding=1)
        x = leaky(x, config.encoder_slope)
        if config.encoder_downsampling == "blur":
            x = blur(x[0])[None]
    kernel = p["encoder.to_hidden.weight"]
    assert kernel.shape[1:] == x.shape[1:], "the last convolution covers the whole map"
    hidden = leaky((kernel * x).sum((1, 2, 3)) + p["encoder.to_hidden.bias"], config.encoder_slope)
    pose = Gauss(linear(p, "encoder.pose_loc", hidden), positive(linear(p, "encoder.pose_scale", hidden)))
    shares = linear(p, "encoder.static.2", leaky(linear(p, "encoder.static.0", hidden), config.encoder_slope))
    return pose, shares[: config.num_experts], shares[config.num_experts :]


def blur(x: Tensor) -> Tensor:
    """Apply a binomial filter of 4 taps and stride 2 to [C, H, W], edges mirrored: 1 pixel before, 2 after."""
    size = x.shape[-1]
    mirrored = [1, *range(size), size - 2, size - 3]
    padded = x[:, mirrored][:, :, mirrored]
    half = (size + 1) // 2
    out = torch.zeros(x.shape[0], half, half, dtype=x.dtype)
    for row, a in enumerate((1, 3, 3, 1)):
        for column, b in enumerate((1, 3, 3, 1)):
            out = out + a * b / 64 * padded[:, row : row + 2 * half : 2, column : column + 2 * half : 2]
    return out


def pool(p: Parameters, encoded: list[tuple[Gauss, Tensor, Tensor]]) -> Gauss:
    """Return q(i | x_1..T): the frames' shares through the K -> K layers, averaged, then the scale made positive."""
    loc = torch.stack([linear(p, "static_loc", share) for _, share, _ in encoded]).sum(0) / len(encoded)
    raw = torch.stack([linear(p, "static_raw_scale", share) for _, _, share in encoded]).sum(0) / len(encoded)
    return Gauss(loc, positive(raw))


def decode(p: Parameters, config: "ModelConfig", pose: Tensor, static: Tensor) -> Tensor:
    """Return the location of each pixel value [C, H, W] of one frame, for pose [Z] and static code [K]."""
    widths = [config.pose_size + config.num_experts, *config.decoder_channels, config.channels]
    x = torch.cat([pose, static])[:, None, None]
    for layer in range(len(widths) - 1):
        kernel = torch.zeros(widths[layer], widths[layer + 1], 4, 4).double()
        bias = torch.zeros(widths[layer + 1]).double()
        for expert in range(config.num_experts):
            kernel = kernel + static[expert] * p[f"decoder.layers.{layer}.kernels"][expert].reshape(kernel.shape)
            bias = bias + static[expert] * p[f"decoder.layers.{layer}.biases"][expert]
        if layer > 0:
            if config.decoder_normalisation == "layer":
                x = (x - x.mean()) / torch.sqrt(((x - x.mean()) ** 2).mean() + 1e-5)
            x = leaky(x, 0.2)
        x = transposed(x, kernel, stride=1 if layer == 0 else 2, crop=0 if layer == 0 else 1) + bias[:, None, None]
    return 0.5 + 0.25 * x if config.likelihood == "laplace" else sigmoid(x)


def transposed(x: Tensor, kernel: Tensor, stride: int, crop: int) -> Tensor:
    """Stamp each input pixel's kernel on the output, `stride` pixels apart, then crop a border of `crop` pixels."""
    size = x.shape[-1]
    full = stride * (size - 1) + 4
    out = torch.zeros(kernel.shape[1], full, full, dtype=x.dtype)
    for a in range(4):
        for b in range(4):
            stamp = torch.tensordot(kernel[:, :, a, b].T, x, dims=1)
            rows, columns = slice(a, a + stride * size, stride), slice(b, b + stride * size, stride)
            out[:, rows, columns] = out[:, rows, columns] + stamp
    return out[:, crop : full - crop, crop : full - crop]


def likelihood(p: Parameters, config: "ModelConfig", frames: Tensor, poses: list[Tensor], static: Tensor) -> Tensor:
    """Return log p(x_1..T | z_1..T, s): a cross-entropy of values in [0, 1], or a density around the decoder's mean."""
    density = torch.zeros((), dtype=torch.float64)
    for frame, pose in zip(frames, poses, strict=True):
        density = density + pixels(p, config, frame, decode(p, config, pose, static)).sum()
    return density


def estimated_likelihood(
    p: Parameters, config: "ModelConfig", frames: Tensor, poses: list[Tensor], static: Tensor, decoded: list[int]
) -> Tensor:
    """Estimate log p(x_1..T | z_1..T, s) as T times the mean over the decoded frames."""
    chosen = likelihood(p, config, torch.stack([frames[t] for t in decoded]), [poses[t] for t in decoded], static)
    return chosen * len(frames) / len(decoded)


def pixels(p: Parameters, config: "ModelConfig", frame: Tensor, mean: Tensor) -> Tensor:
    """Return log p of each pixel value."""
    if config.likelihood == "bernoulli":
        return frame * torch.log(mean) + (1 - frame) * torch.log(1 - mean)
    if config.likelihood_scale is None:
        scale = torch.log(1 + torch.exp(p["likelihood.raw_scale"])) + 1 / 255
    else:
        scale = torch.tensor(config.likelihood_scale, dtype=torch.float64)
    if config.likelihood == "gaussian":
        return -0.5 * (frame - mean) ** 2 / scale**2 - torch.log(scale) - 0.5 * math.log(2 * math.pi)
    return -torch.abs(frame - mean) / scale - torch.log(2 * scale)

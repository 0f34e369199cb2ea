"""The expert decoder p(x_t | z_t, s): the static code s of a clip blends the kernels of K expert decoders."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdsm.config import ModelConfig
from vdsm.precision import at_least_fp32

SLOPE = 0.2
"""Negative slope of the LeakyReLU between the decoder's layers."""
LARGEST_FOLDED = 4
"""Largest width (in pixels) of the maps that a layer upsamples by a matrix product and `fold`. On larger maps a grouped
transposed convolution is faster, since the products are many times larger than the kernels (docs/performance.md).
"""


class KernelShift(NamedTuple):
    """What is added to the blended weights of one layer, whichever static code blends them."""

    kernels: Tensor
    """[Cin * Cout * 16]"""
    biases: Tensor
    """[Cout]"""


class ExpertTransposedConv(nn.Module):
    """A transposed convolution (kernel 4) whose weights are a blend per clip: W = sum_k s_k W_k, b = sum_k s_k b_k."""

    def __init__(self, config: ModelConfig, in_channels: int, out_channels: int, *, stride: int, gain: float) -> None:
        super().__init__()
        self.shape = (in_channels, out_channels, 4, 4)
        self.stride = stride
        self.largest_folded = LARGEST_FOLDED
        """Largest width of the maps that are upsampled by a matrix product and `fold`; any gives the same numbers."""
        # An output pixel sees 4 / stride taps per axis of every input channel, but just one tap where the input is 1x1.
        taps = 1 if stride == 1 else (4 // stride) ** 2
        deviation = gain / math.sqrt(in_channels * taps)
        size, groups = in_channels * out_channels * 16, config.static_groups
        # A blend sums one simplex point per group: independent kernels add in variance, a shared one in amplitude.
        kernels = deviation / math.sqrt(groups) * torch.randn(config.num_experts, size)
        if config.expert_init == "shared":
            kernels = math.sqrt(0.5) * (kernels + deviation / groups * torch.randn(1, size))
        self.kernels = nn.Parameter(kernels)
        self.biases = nn.Parameter(torch.zeros(config.num_experts, out_channels))

    def forward(self, x: Tensor, static: Tensor, shift: KernelShift | None = None) -> Tensor:
        """Map [B, T, Cin, H, W] and s [B, K] to [B, T, Cout, H', W']: 1x1 to 4x4 at stride 1, doubled at stride 2."""
        clips, frames = x.shape[:2]
        in_channels, out_channels = self.shape[:2]
        kernels = static @ self.kernels
        biases = static @ self.biases
        if shift is not None:
            kernels, biases = kernels + shift.kernels, biases + shift.biases
        drawn: Tensor
        if self.stride == 1:
            drawn = torch.bmm(x.flatten(2), kernels.view(clips, in_channels, -1))
            return drawn.view(clips, frames, out_channels, 4, 4) + biases[:, None, :, None, None]
        if x.shape[-1] <= self.largest_folded:
            # One matrix product per clip computes all stamps; `fold` adds up those that overlap.
            pixels = x.permute(0, 1, 3, 4, 2).flatten(1, 3)
            stamps = torch.bmm(pixels, kernels.view(clips, in_channels, -1))
            stamps = stamps.view(clips * frames, -1, stamps.shape[-1]).transpose(1, 2)
            size = 2 * x.shape[-1]
            drawn = F.fold(stamps, (size, size), kernel_size=4, padding=1, stride=2)
            return drawn.view(clips, frames, out_channels, size, size) + biases[:, None, :, None, None]
        # One group per clip: the frames are the batch, and the clips' channels are concatenated.
        grouped = x.transpose(0, 1).flatten(1, 2)
        drawn = F.conv_transpose2d(
            grouped, kernels.view(clips * in_channels, *self.shape[1:]), biases.flatten(), 2, 1, groups=clips
        )
        frames_first: Tensor = drawn.unflatten(1, (clips, out_channels))
        return frames_first.transpose(0, 1)


def normalise(x: Tensor) -> Tensor:
    """Normalise [B, T, C, H, W] to mean 0 and variance 1 over the features of each frame."""
    variance, mean = torch.var_mean(at_least_fp32(x), (-3, -2, -1), correction=0, keepdim=True)
    return (x - mean.to(x.dtype)) * torch.rsqrt(variance + 1e-5).to(x.dtype)


class Decoder(nn.Module):
    """Logits of p(x_t | z_t, s): five (at 64 pixels) blended transposed convolutions from [z_t, s] to a frame."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths = [config.pose_size + config.num_experts, *config.decoder_channels, config.channels]
        relu_gain = math.sqrt(2 / (1 + SLOPE**2))
        self.static_groups = config.static_groups
        self.normalises = config.decoder_normalisation == "layer"
        self.layers = nn.ModuleList(
            ExpertTransposedConv(
                config,
                widths[index],
                widths[index + 1],
                stride=1 if index == 0 else 2,
                gain=relu_gain if index < len(widths) - 2 else 1.0,
            )
            for index in range(len(widths) - 1)
        )

    def forward(self, pose: Tensor, static: Tensor, shifts: Sequence[KernelShift] | None = None) -> Tensor:
        """Decode poses [B, T, Z] and static codes [B, K] on the simplex to logits [B, T, C, H, W].

        `shifts`, one per layer, are added to the blended weights.
        """
        code = static[:, None].expand(-1, pose.shape[1], -1)
        x = torch.cat([pose, code], dim=-1)[..., None, None]
        for index, layer in enumerate(self.layers):
            if index > 0:
                x = F.leaky_relu(normalise(x) if self.normalises else x, SLOPE)
            x = layer(x, static, shifts[index] if shifts is not None else None)
        return x

    def no_shifts(self) -> tuple[KernelShift, ...]:
        """Return shifts of 0, one per layer."""
        kernels, biases = ([getattr(layer, name)[0] for layer in self.layers] for name in ("kernels", "biases"))
        return tuple(
            KernelShift(torch.zeros_like(k), torch.zeros_like(b)) for k, b in zip(kernels, biases, strict=True)
        )

    @torch.no_grad()
    def add_shifts(self, shifts: Sequence[KernelShift]) -> None:
        """Add a shift to the blended weights of each layer, for good: a share of it to every expert."""
        for layer, shift in zip(self.layers, shifts, strict=True):
            assert isinstance(layer, ExpertTransposedConv)
            # The weights of a blend sum to 1 per group.
            layer.kernels.add_(shift.kernels / self.static_groups)
            layer.biases.add_(shift.biases / self.static_groups)

"""The image encoder: q(z_t | x_t), and each frame's share of q(i | x_1..T)."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdsm.backbones import Backbone
from vdsm.config import ModelConfig
from vdsm.precision import at_least_fp32, full_precision

MIN_SCALE = 1e-4
"""Added to every softplus scale, so that no Normal collapses to a point mass."""


def positive_scale(raw: Tensor) -> Tensor:
    """Return softplus(raw) + MIN_SCALE, in float32 or better."""
    return F.softplus(at_least_fp32(raw)) + MIN_SCALE


def start_scale_at(layer: nn.Linear, scale: float) -> None:
    """Initialise `layer` with softplus(layer(x)) near `scale`, the prior's: initial KL and noise are then small."""
    nn.init.normal_(layer.weight, std=0.1 / math.sqrt(layer.in_features))
    nn.init.constant_(layer.bias, math.log(math.expm1(scale)))


class BlurPool(nn.Module):
    """Anti-aliased downsampling by 2: binomial filter [1, 3, 3, 1] / 8 per axis, reflect padding, stride 2.

    Filter, padding and stride along one axis form one matrix, applied to both axes by two matrix products. This is
    faster than padding and a depthwise convolution, especially in bfloat16 (docs/performance.md).
    """

    matrix: Tensor

    def __init__(self, size: int) -> None:
        """Build the filter for maps of `size` x `size` pixels."""
        super().__init__()
        matrix = torch.zeros((size + 1) // 2, size)
        mirrored = [1, *range(size), size - 2, size - 3]
        for row in range(len(matrix)):
            for tap, weight in enumerate((1, 3, 3, 1)):
                matrix[row, mirrored[2 * row + tap]] += weight / 8
        self.register_buffer("matrix", matrix, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Downsample [N, C, size, size] to [N, C, ceil(size / 2), ceil(size / 2)]; channels-last memory is fastest."""
        images, channels, size, _ = x.shape
        rows = self.matrix @ x.permute(0, 2, 3, 1).reshape(images, size, -1)
        pooled = self.matrix @ rows.view(-1, size, channels)
        return pooled.view(images, -1, len(self.matrix), channels).permute(0, 3, 1, 2)


def _conv_blocks(config: ModelConfig) -> nn.Sequential:
    """Build the blocks that map [N, C, S, S] to [N, encoder_channels[-1], 4, 4]."""
    blocks: list[nn.Module] = []
    channels, size = config.channels, config.frame_size
    for width in config.encoder_channels:
        stride = 2 if config.encoder_downsampling == "stride" else 1
        blocks += [nn.Conv2d(channels, width, 4, stride, padding=1), nn.LeakyReLU(config.encoder_slope)]
        if config.encoder_downsampling == "blur":
            blocks.append(BlurPool(size - 1))
        channels, size = width, size // 2
    return nn.Sequential(*blocks)


class FrameLatents(NamedTuple):
    """Parameters of the latents read from each frame."""

    pose_loc: Tensor
    """[B, T, Z]"""
    pose_scale: Tensor
    """[B, T, Z], above 0."""
    static_loc: Tensor
    """[B, T, K], not yet pooled over the frames."""
    static_raw_scale: Tensor
    """[B, T, K], before pooling and softplus."""


class ImageEncoder(nn.Module):
    """q(z_t | x_t), and each frame's share of q(i | x_1..T), from one shared network."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.image_encoder == "conv":
            self.blocks: nn.Module = _conv_blocks(config)
            self.to_hidden: nn.Module = nn.Conv2d(config.encoder_channels[-1], config.encoder_hidden, 4)
        else:
            self.blocks = backbone = Backbone(config)
            self.to_hidden = nn.Linear(backbone.features, config.encoder_hidden)
        self.activation = nn.LeakyReLU(config.encoder_slope)
        self.pose_loc = nn.Linear(config.encoder_hidden, config.pose_size)
        self.pose_scale = nn.Linear(config.encoder_hidden, config.pose_size)
        self.static = nn.Sequential(
            nn.Linear(config.encoder_hidden, config.static_hidden),
            nn.LeakyReLU(config.encoder_slope),
            nn.Linear(config.static_hidden, 2 * config.num_experts),
        )
        if config.encoder_init == "he":
            # The networks of torchvision have an initialisation of their own.
            blocks = self.blocks if isinstance(self.blocks, nn.Sequential) else ()
            for layer in (*blocks, self.to_hidden, self.static[0]):
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    nn.init.kaiming_normal_(layer.weight, a=config.encoder_slope)
                    if layer.bias is not None:
                        nn.init.zeros_(layer.bias)

    def forward(self, frames: Tensor) -> FrameLatents:
        """Encode frames [B, T, C, H, W] in [0, 1] into the latents of each frame."""
        images = frames.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        hidden = self.activation(self.to_hidden(self.blocks(images))).flatten(1)
        hidden = at_least_fp32(hidden.unflatten(0, frames.shape[:2]))
        with full_precision(hidden):
            static_loc, static_raw_scale = self.static(hidden).chunk(2, dim=-1)
            pose_scale = positive_scale(self.pose_scale(hidden))
            return FrameLatents(self.pose_loc(hidden), pose_scale, static_loc, static_raw_scale)

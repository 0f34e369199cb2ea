"""The image encoder: from a frame to the parameters of its pose and of its share of the static latent."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdsm.backbones import Backbone
from vdsm.config import ModelConfig
from vdsm.precision import at_least_fp32, full_precision

MIN_SCALE = 1e-4
"""Added to every softplus scale, so that no Normal collapses to a point."""


def positive_scale(raw: Tensor) -> Tensor:
    """softplus(raw) + MIN_SCALE, in float32 or better."""
    return F.softplus(at_least_fp32(raw)) + MIN_SCALE


def start_scale_at(layer: nn.Linear, scale: float) -> None:
    """Make softplus(layer(x)) start near `scale`, the prior's, so that the first KL and the first noise are small."""
    nn.init.normal_(layer.weight, std=0.1 / math.sqrt(layer.in_features))
    nn.init.constant_(layer.bias, math.log(math.expm1(scale)))


class BlurPool(nn.Module):
    """Anti-aliased down-sampling by 2: binomial filter [1, 3, 3, 1] / 8 per axis, reflect padding, stride 2.

    Filter, padding and stride along one axis are one matrix, which two matrix products apply to both axes: faster than
    padding and a depthwise convolution, by far so in bfloat16 (docs/performance.md).
    """

    matrix: Tensor

    def __init__(self, size: int) -> None:
        """For maps of `size` x `size`."""
        super().__init__()
        matrix = torch.zeros((size + 1) // 2, size)
        mirrored = [1, *range(size), size - 2, size - 3]
        for row in range(len(matrix)):
            for tap, weight in enumerate((1, 3, 3, 1)):
                matrix[row, mirrored[2 * row + tap]] += weight / 8
        self.register_buffer("matrix", matrix, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, size, size] -> [N, C, ceil(size / 2), ceil(size / 2)], best with channels last in memory."""
        images, channels, size, _ = x.shape
        rows = self.matrix @ x.permute(0, 2, 3, 1).reshape(images, size, -1)
        pooled = self.matrix @ rows.view(-1, size, channels)
        return pooled.view(images, -1, len(self.matrix), channels).permute(0, 3, 1, 2)


def _conv_blocks(config: ModelConfig) -> nn.Sequential:
    """[N, C, S, S] -> [N, last of encoder_channels, 4, 4]."""
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
    """What one frame says of the latents."""

    pose_loc: Tensor
    """[B, T, Z]"""
    pose_scale: Tensor
    """[B, T, Z], above 0."""
    static_loc: Tensor
    """[B, T, K], not yet pooled over the frames."""
    static_raw_scale: Tensor
    """[B, T, K], before pooling and softplus."""


class ImageEncoder(nn.Module):
    """The shared encoder of q(z_t | x_t) and q(i | x_1..T)."""

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
            # The networks of torchvision have first weights of their own.
            own = self.blocks if isinstance(self.blocks, nn.Sequential) else ()
            for layer in (*own, self.to_hidden, self.static[0]):
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    nn.init.kaiming_normal_(layer.weight, a=config.encoder_slope)
                    if layer.bias is not None:
                        nn.init.zeros_(layer.bias)

    def forward(self, frames: Tensor) -> FrameLatents:
        """Frames [B, T, C, H, W] in [0, 1] -> latents of each frame."""
        images = frames.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        hidden = self.activation(self.to_hidden(self.blocks(images))).flatten(1)
        hidden = at_least_fp32(hidden.unflatten(0, frames.shape[:2]))
        with full_precision(hidden):
            static_loc, static_raw_scale = self.static(hidden).chunk(2, dim=-1)
            pose_scale = positive_scale(self.pose_scale(hidden))
            return FrameLatents(self.pose_loc(hidden), pose_scale, static_loc, static_raw_scale)

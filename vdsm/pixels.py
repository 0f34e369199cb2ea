"""Clips as bytes and as numbers: uint8 [B, T, H, W, C], as stored and shown, and float32 [B, T, C, H, W] in [0, 1]."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_pixels(frames: Tensor) -> NDArray[np.uint8]:
    """Convert frames f32 [B, T, C, H, W] in [0, 1], on any device, to uint8 [B, T, H, W, C]."""
    pixels = (frames.clamp(0, 1) * 255).round().to(torch.uint8)
    found: NDArray[np.uint8] = pixels.permute(0, 1, 3, 4, 2).cpu().numpy()
    return found


def to_float(pixels: Tensor) -> Tensor:
    """Convert uint8 [B, T, H, W, C] to f32 [B, T, C, H, W] in [0, 1], on the device that they are on."""
    return pixels.permute(0, 1, 4, 2, 3).contiguous().float().div_(255)

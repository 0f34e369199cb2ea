"""Random changes of training samples that leave alone what the model separates: appearance and motion.

All frames of a sample, both windows of a pair included, are changed alike: a change of colour is another look that does
the same, a shift or a flip another place or side of the same look. Validation and evaluation see the clips unchanged.

Letters: B samples, T frames of a sample, C H W image.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.training.samples_config import AugmentationConfig
from vdsm.row_streams import Generator, uniform


class Augmentation(NamedTuple):
    """What is done to each sample of a batch."""

    gain: Tensor
    """Factor of the contrast around the sample's mean colour, [B]."""
    saturation: Tensor
    """Factor of the distance of each colour from grey, [B]."""
    hue: Tensor
    """Angle of a rotation around the axis of greys, in radians, [B]."""
    offset: Tensor
    """Added to the channels, for values in [0, 1]: [B, 3]."""
    zoom: Tensor
    """Side of the part of the image that is shown, as a fraction of the side of the image, [B]."""
    shift: Tensor
    """Distance of its centre from that of the image along x and y, as a fraction of the side, [B, 2]."""
    flip: Tensor
    """1, or -1 where the sample is mirrored, [B]."""


def draw_augmentation(config: AugmentationConfig, samples: int, generator: Generator) -> Augmentation:
    """Draw the changes of `samples` samples, on the generator's device.

    Every number is drawn, also those that `config` turns into no change, so that one setting does not affect another's
    draws.
    """

    def signed(*shape: int) -> Tensor:
        return 2 * uniform(generator, samples, *shape) - 1

    colour, crop = config.colour, config.crop
    return Augmentation(
        gain=torch.exp(colour * signed()),
        saturation=torch.exp(2 * colour * signed()),
        hue=math.pi * colour * signed(),
        offset=0.5 * colour * signed(3),
        zoom=1 + crop * signed(),
        shift=0.5 * crop * signed(2),
        flip=torch.where(0.5 * (signed() + 1) < config.flip, -1.0, 1.0),
    )


def augment(frames: Tensor, changes: Augmentation) -> Tensor:
    """Return frames [B, T, C, H, W] in [0, 1] with each sample changed.

    Parts beyond the border repeat it. Grey frames have no saturation or hue, and use the first channel's offset.
    """
    return _change_colours(_crop(frames, changes), changes)


def _crop(frames: Tensor, changes: Augmentation) -> Tensor:
    clips, _, _, height, width = frames.shape
    affine = frames.new_zeros(clips, 2, 3)
    affine[:, 0, 0], affine[:, 1, 1] = changes.zoom * changes.flip, changes.zoom
    # Coordinates are from -1 to 1, so that a side has length 2.
    affine[:, :, 2] = 2 * changes.shift
    grid = F.affine_grid(affine, [clips, 1, height, width], align_corners=False)
    moved = F.grid_sample(frames.flatten(1, 2), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return moved.view_as(frames)


def _change_colours(frames: Tensor, changes: Augmentation) -> Tensor:
    """Return clamp(A (x - mean) + mean + offset), where A is gain * saturation around grey * hue rotation."""
    channels = frames.shape[2]
    matrix = changes.gain[:, None, None]
    if channels == 3:
        matrix = matrix * _saturation(changes.saturation) @ _hue_rotation(changes.hue)
    mean = frames.mean((1, 3, 4))
    centre = mean[:, None, :, None, None]
    mixed = torch.einsum("bij,btjhw->btihw", matrix, frames - centre)
    return (mixed + centre + changes.offset[:, None, :channels, None, None]).clamp(0, 1)


def _saturation(factor: Tensor) -> Tensor:
    """Return matrices [B, 3, 3] that multiply the distance of a colour from its grey by factors [B]."""
    grey = factor.new_full((3, 3), 1 / 3)
    return factor[:, None, None] * (_identity(factor) - grey) + grey


def _hue_rotation(angle: Tensor) -> Tensor:
    """Return the rotations [B, 3, 3] by angles [B] around the axis (1, 1, 1) (Rodrigues' formula)."""
    along = angle.new_full((3, 3), 1 / 3)
    cycle = _identity(angle).roll(1, 0)
    across = (cycle - cycle.T) / math.sqrt(3)  # [[0, -1, 1], [1, 0, -1], [-1, 1, 0]]
    cosine, sine = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    return cosine * _identity(angle) + (1 - cosine) * along + sine * across


def _identity(like: Tensor) -> Tensor:
    """Return the identity [3, 3], made on the device of `like`: a copy would make the host wait for it."""
    return torch.eye(3, dtype=like.dtype, device=like.device)

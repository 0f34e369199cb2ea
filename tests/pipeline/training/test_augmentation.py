"""Augmentation against slow computations pixel by pixel, and what must not depend on it."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.training.augmentation import Augmentation, augment, draw_augmentation
from pipeline.training.distributed import DistributedContext
from pipeline.training.job import Job
from pipeline.training.samples_config import AugmentationConfig
from pipeline.training.step import Stepper
from vdsm.disentangler import Disentangler

NOTHING: dict[str, Any] = {
    "gain": 1.0, "saturation": 1.0, "hue": 0.0, "offset": (0.0, 0.0, 0.0),
    "zoom": 1.0, "shift": (0.0, 0.0), "flip": 1.0,
}  # fmt: skip


def one_change(**changes: Any) -> Augmentation:
    return Augmentation(**{name: torch.tensor([value]) for name, value in (NOTHING | changes).items()})


def images(channels: int = 3, size: int = 8, frames: int = 2) -> Tensor:
    return torch.rand(1, frames, channels, size, size, generator=torch.Generator().manual_seed(1))


def slow_colours(frames: Tensor, changes: Augmentation) -> Tensor:
    """Change one sample's colours pixel by pixel."""
    gain, saturation, angle = (float(part[0]) for part in changes[:3])
    axis = np.ones(3) / math.sqrt(3)
    mean = frames[0].double().mean((0, 2, 3)).numpy()
    result = torch.empty_like(frames)
    for time in range(frames.shape[1]):
        for row in range(frames.shape[3]):
            for column in range(frames.shape[4]):
                colour = frames[0, time, :, row, column].double().numpy() - mean
                turned = (
                    math.cos(angle) * colour
                    + math.sin(angle) * np.cross(axis, colour)
                    + (1 - math.cos(angle)) * axis * (axis @ colour)
                )
                grey = np.full(3, turned.mean())
                changed = gain * (grey + saturation * (turned - grey)) + mean + changes.offset[0].numpy()
                result[0, time, :, row, column] = torch.from_numpy(changed.clip(0, 1))
    return result


def slow_crop(image: Tensor, changes: Augmentation) -> Tensor:
    """Sample one image [H, W] pixel by pixel: bilinear, with its border repeated."""
    height, width = image.shape
    zoom, flip = float(changes.zoom[0]), float(changes.flip[0])
    result = torch.empty_like(image)
    for row in range(height):
        for column in range(width):
            # Distances from the centre, as fractions of a side.
            x = ((column + 0.5) / width - 0.5) * zoom * flip + float(changes.shift[0, 0])
            y = ((row + 0.5) / height - 0.5) * zoom + float(changes.shift[0, 1])
            right = min(max((x + 0.5) * width - 0.5, 0), width - 1)
            down = min(max((y + 0.5) * height - 0.5, 0), height - 1)
            left, top = min(int(right), width - 2), min(int(down), height - 2)
            across, along = right - left, down - top
            upper = (1 - across) * image[top, left] + across * image[top, left + 1]
            lower = (1 - across) * image[top + 1, left] + across * image[top + 1, left + 1]
            result[row, column] = (1 - along) * upper + along * lower
    return result


@pytest.mark.parametrize(
    "changes",
    [
        {"gain": 1.3},
        {"saturation": 0.4},
        {"hue": 0.7},
        {"offset": (0.1, -0.2, 0.05)},
        {"gain": 0.8, "saturation": 1.4, "hue": -0.4, "offset": (0.0, 0.1, 0.2)},
    ],
)
def test_colours_change_as_computed_pixel_by_pixel(changes: dict[str, Any]) -> None:
    frames, change = images(), one_change(**changes)
    torch.testing.assert_close(augment(frames, change), slow_colours(frames, change), atol=1e-5, rtol=0)


@pytest.mark.parametrize("changes", [{"zoom": 0.8}, {"zoom": 1.2}, {"shift": (0.1, -0.07)}, {"flip": -1.0}])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_crop_shows_what_is_computed_pixel_by_pixel(changes: dict[str, Any], channels: int) -> None:
    frames, change = images(channels), one_change(**changes)
    moved = augment(frames, change)
    for time in range(frames.shape[1]):
        for channel in range(channels):
            expected = slow_crop(frames[0, time, channel], change)
            torch.testing.assert_close(moved[0, time, channel], expected, atol=1e-5, rtol=0)


def test_a_positive_shift_moves_the_image_to_the_left() -> None:
    frames = images()
    torch.testing.assert_close(augment(frames, one_change(shift=(0.125, 0.0)))[..., :-1], frames[..., 1:])


def test_a_flip_mirrors_and_no_change_is_none() -> None:
    frames = images()
    torch.testing.assert_close(augment(frames, one_change(flip=-1.0)), frames.flip(-1))
    torch.testing.assert_close(augment(frames, one_change()), frames)


def test_a_hue_rotation_keeps_greys_and_distances() -> None:
    grey = torch.rand(1, 2, 1, 8, 8).expand(-1, -1, 3, -1, -1)
    torch.testing.assert_close(augment(grey, one_change(hue=1.1)), grey)
    turned = augment(images() * 0.2 + 0.4, one_change(hue=2 * math.pi / 3))
    torch.testing.assert_close(turned.mean((1, 3, 4)), (images() * 0.2 + 0.4).mean((1, 3, 4)))


def test_both_windows_of_a_pair_and_all_their_frames_change_alike() -> None:
    still = images(frames=1).expand(-1, 6, -1, -1, -1)
    changes = draw_augmentation(AugmentationConfig(colour=0.5, crop=0.3, flip=0.5), 1, torch.Generator().manual_seed(0))
    changed = augment(still, changes)
    assert not torch.equal(changed, still)
    torch.testing.assert_close(changed, changed[:, :1].expand_as(changed))


def test_samples_change_independently_of_each_other_and_of_other_settings() -> None:
    def drawn(**settings: float) -> Augmentation:
        return draw_augmentation(AugmentationConfig(**settings), 200, torch.Generator().manual_seed(3))

    both, colour, flips = drawn(colour=0.2, crop=0.1), drawn(colour=0.2), drawn(flip=0.25)
    assert torch.equal(both.hue, colour.hue)
    assert len(both.hue.unique()) == 200
    assert 30 <= int((flips.flip < 0).sum()) <= 70
    assert torch.equal(flips.zoom, torch.ones(200))
    assert torch.equal(flips.gain, torch.ones(200))


def test_each_rank_changes_its_rows_of_the_global_batch_as_one_rank_would(tiny_job: Callable[..., Job]) -> None:
    job = tiny_job(augmentation=AugmentationConfig(colour=0.3, crop=0.1))

    def changes(rank: int, size: int) -> Augmentation:
        model = Disentangler(job.model)
        # Only the numbers of ranks matter here; no gradient is exchanged.
        stepper = Stepper(job, 1, model.prepare_stage(1), model, DistributedContext())
        stepper.world = DistributedContext(rank=rank, size=size)
        found = stepper._augmentation(7)
        assert found is not None
        return found

    alone = changes(0, 1)
    halves = zip(changes(0, 2), changes(1, 2), strict=True)
    for whole, (first, second) in zip(alone, halves, strict=True):
        assert torch.equal(whole, torch.cat([first, second]))


@pytest.mark.parametrize(("name", "value"), [("colour", -0.1), ("colour", 1.5), ("crop", 0.6), ("flip", 2.0)])
def test_a_setting_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"augmentation\.{name} is {value}; it must be in \[0, "):
        AugmentationConfig(**{name: value})

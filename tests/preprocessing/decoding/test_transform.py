"""Frames are cropped, rotated and resized as requested, without aliasing."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from preprocessing.decoding.transform import Crop, FrameTransform, composite_over_black


def to_image(pixels: NDArray[Any]) -> Image.Image:
    return Image.fromarray(pixels.astype(np.uint8))


def gradient(height: int, width: int) -> NDArray[np.float64]:
    """Return an image whose red grows to the right and green downwards."""
    image = np.zeros((height, width, 3))
    image[..., 0] = np.linspace(0, 255, width)
    image[..., 1] = np.linspace(0, 255, height)[:, None]
    return image


def test_a_frame_of_the_right_size_is_unchanged() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(FrameTransform(64, 3)(to_image(pixels)), pixels)


def test_fine_stripes_become_grey_and_do_not_alias() -> None:
    stripes = np.zeros((640, 640, 3))
    stripes[:, ::3] = 255  # a resize that samples few pixels would show bands
    small = FrameTransform(64, 3)(to_image(stripes)).astype(int)
    assert np.abs(small - 85).max() <= 12


@pytest.mark.parametrize("size", [16, 31, 64])
def test_a_reduction_by_an_integer_factor_is_close_to_the_mean_of_each_block(size: int) -> None:
    blocks = np.random.default_rng(1).integers(60, 196, (size, size, 3))
    large = np.kron(blocks, np.ones((8, 8, 1)))
    small = FrameTransform(size, 3)(to_image(large)).astype(int)
    assert np.abs(small - blocks).mean() < 25  # bicubic sharpens, so not equal


def test_an_image_that_is_not_square_is_cropped_padded_or_stretched() -> None:
    wide = gradient(64, 192)
    crop = FrameTransform(64, 3, "crop")(to_image(wide))
    assert np.abs(crop.astype(int) - wide[:, 64:128]).max() <= 1
    pad = FrameTransform(96, 3, "pad")(to_image(wide))
    assert np.all(pad[:32] == 0)
    assert np.all(pad[64:] == 0)
    assert pad[48, -1, 0] > 240
    stretch = FrameTransform(64, 3, "stretch")(to_image(wide))
    assert stretch[32, 0, 0] < 10
    assert stretch[32, -1, 0] > 245
    assert stretch[-1, 32, 1] > 245


def test_a_crop_box_is_in_pixels_of_the_upright_image_and_is_clipped_to_it() -> None:
    image = gradient(100, 200)
    box = FrameTransform(32, 3, crop=Crop(100, 20, 32, 32))(to_image(image))
    assert np.abs(box.astype(int) - image[20:52, 100:132]).max() <= 1
    beyond = FrameTransform(32, 3, crop=Crop(168, -10, 64, 42))(to_image(image))
    assert np.abs(beyond.astype(int) - image[0:32, 168:200]).max() <= 1
    with pytest.raises(ValueError, match="outside of the frame of 200x100 pixels"):
        FrameTransform(32, 3, crop=Crop(300, 0, 10, 10))(to_image(image))


@pytest.mark.parametrize("degrees", [0, 90, 180, 270, -90, -180])
def test_rotation_comes_before_cropping(degrees: int) -> None:
    upright = gradient(80, 120)
    stored = np.rot90(upright, -degrees // 90)
    transform = FrameTransform(40, 3, crop=Crop(60, 30, 40, 40))
    assert np.array_equal(transform(to_image(stored), rotation=degrees), transform(to_image(upright)))


def test_pixels_that_are_not_square_are_corrected() -> None:
    rows, columns = (np.mgrid[:144, :72] - np.array([72, 36])[:, None, None]) / np.array([60, 30])[:, None, None]
    # a circle, if pixels are twice as wide as high
    image = np.repeat((np.hypot(rows, columns) < 1)[..., None] * 255, 3, axis=-1)
    frame = FrameTransform(72, 1, "crop")(to_image(image), aspect=2.0)[..., 0] > 127
    assert abs(int(frame.any(axis=0).sum()) - int(frame.any(axis=1).sum())) <= 1
    sideways = FrameTransform(72, 1, "crop")(to_image(np.rot90(image)), aspect=0.5, rotation=-90)[..., 0] > 127
    assert np.array_equal(sideways, frame)


def test_grey_has_one_channel_and_the_standard_weights() -> None:
    image = np.zeros((32, 32, 3))
    image[..., 1] = 200
    frame = FrameTransform(32, 1)(to_image(image))
    assert frame.shape == (32, 32, 1)
    assert np.all(frame == round(0.587 * 200))


def test_transparency_is_composited_over_black() -> None:
    image = np.full((8, 8, 4), 200, np.uint8)
    image[..., 3] = np.arange(64).reshape(8, 8) * 4
    flat = np.asarray(composite_over_black(Image.fromarray(image)))
    assert np.abs(flat[..., 0] - 200.0 * image[..., 3] / 255).max() <= 1

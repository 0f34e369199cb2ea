"""Frames are cut out, turned and resized as told, without aliasing."""

import numpy as np
import pytest
from PIL import Image

from preprocessing.decoding.transform import FrameTransform, composite_over_black


def picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.astype(np.uint8))


def gradient(height: int, width: int) -> np.ndarray:
    """Red grows to the right, green downwards."""
    image = np.zeros((height, width, 3))
    image[..., 0] = np.linspace(0, 255, width)
    image[..., 1] = np.linspace(0, 255, height)[:, None]
    return image


def test_a_frame_of_the_right_size_is_left_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(FrameTransform(64, 3)(picture(pixels)), pixels)


def test_fine_stripes_become_grey_and_do_not_alias() -> None:
    stripes = np.zeros((640, 640, 3))
    stripes[:, ::3] = 255  # a resize that looks at few pixels would show bands
    small = FrameTransform(64, 3)(picture(stripes)).astype(int)
    assert np.abs(small - 85).max() <= 12


@pytest.mark.parametrize("size", [16, 31, 64])
def test_a_reduction_by_a_whole_number_is_near_the_mean_of_each_block(size: int) -> None:
    blocks = np.random.default_rng(1).integers(60, 196, (size, size, 3))
    large = np.kron(blocks, np.ones((8, 8, 1)))
    small = FrameTransform(size, 3)(picture(large)).astype(int)
    assert np.abs(small - blocks).mean() < 25  # bicubic sharpens, so not equal


def test_the_middle_is_kept_the_whole_is_padded_or_stretched() -> None:
    wide = gradient(64, 192)
    crop = FrameTransform(64, 3, "crop")(picture(wide))
    assert np.abs(crop.astype(int) - wide[:, 64:128]).max() <= 1
    pad = FrameTransform(96, 3, "pad")(picture(wide))
    assert np.all(pad[:32] == 0)
    assert np.all(pad[64:] == 0)
    assert pad[48, -1, 0] > 240
    stretch = FrameTransform(64, 3, "stretch")(picture(wide))
    assert stretch[32, 0, 0] < 10
    assert stretch[32, -1, 0] > 245
    assert stretch[-1, 32, 1] > 245


def test_a_crop_box_is_in_pixels_of_the_upright_picture_and_stays_within_it() -> None:
    image = gradient(100, 200)
    box = FrameTransform(32, 3, crop=(100, 20, 32, 32))(picture(image))
    assert np.abs(box.astype(int) - image[20:52, 100:132]).max() <= 1
    beyond = FrameTransform(32, 3, crop=(168, -10, 64, 42))(picture(image))
    assert np.abs(beyond.astype(int) - image[0:32, 168:200]).max() <= 1
    with pytest.raises(ValueError, match="outside of the frame of 200x100 pixels"):
        FrameTransform(32, 3, crop=(300, 0, 10, 10))(picture(image))


@pytest.mark.parametrize("degrees", [0, 90, 180, 270, -90, -180])
def test_turning_comes_before_cropping(degrees: int) -> None:
    upright = gradient(80, 120)
    stored = np.rot90(upright, -degrees // 90)
    transform = FrameTransform(40, 3, crop=(60, 30, 40, 40))
    assert np.array_equal(transform(picture(stored), rotation=degrees), transform(picture(upright)))


def test_pixels_that_are_not_square_are_made_so() -> None:
    rows, columns = (np.mgrid[:144, :72] - np.array([72, 36])[:, None, None]) / np.array([60, 30])[:, None, None]
    image = np.repeat((np.hypot(rows, columns) < 1)[..., None] * 255, 3, axis=-1)  # a circle, of pixels twice as wide
    frame = FrameTransform(72, 1, "crop")(picture(image), aspect=2.0)[..., 0] > 127
    assert abs(int(frame.any(axis=0).sum()) - int(frame.any(axis=1).sum())) <= 1
    sideways = FrameTransform(72, 1, "crop")(picture(np.rot90(image)), aspect=0.5, rotation=-90)[..., 0] > 127
    assert np.array_equal(sideways, frame)


def test_grey_has_one_channel_and_the_usual_weights() -> None:
    image = np.zeros((32, 32, 3))
    image[..., 1] = 200
    frame = FrameTransform(32, 1)(picture(image))
    assert frame.shape == (32, 32, 1)
    assert np.all(frame == round(0.587 * 200))


def test_transparency_is_laid_composite_over_black() -> None:
    image = np.full((8, 8, 4), 200, np.uint8)
    image[..., 3] = np.arange(64).reshape(8, 8) * 4
    flat = np.asarray(composite_over_black(Image.fromarray(image)))
    assert np.abs(flat[..., 0] - 200.0 * image[..., 3] / 255).max() <= 1

"""Turn a decoded image into a frame of a clip: upright, cropped, resized with anti-aliasing, grey or RGB."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MIN_SIDE = 8
"""Smallest accepted height and width, in pixels; below it there is nothing worth enlarging."""


class Crop(NamedTuple):
    """The region that is kept, in pixels of the upright image."""

    left: float
    top: float
    width: float
    height: float
    moves: tuple[tuple[float, float, float], ...] = ()
    """Where it is at other times: (seconds, left, top), in order. In between it moves in a straight line; before the
    first and after the last it stands still. Empty: it always does."""

    @staticmethod
    def of(box: Iterable[float], moves: Iterable[Iterable[float]] = ()) -> "Crop":
        """Return the crop with a box (left, top, width, height) and moves, given as lists."""
        left, top, width, height = box
        return Crop(left, top, width, height, tuple((time, x, y) for time, x, y in moves))

    def at(self, time_s: float) -> "Crop":
        """Return where it is at a time in seconds since the first frame."""
        if not self.moves:
            return self
        times, lefts, tops = zip(*self.moves)
        return Crop(float(np.interp(time_s, times, lefts)), float(np.interp(time_s, times, tops)), *self[2:4])


_ROTATIONS = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}


class Transform(Protocol):
    """Turns decoded images into the pixels that a source keeps of them."""

    @property
    def size(self) -> int:
        """Height and width of the smallest result, in pixels; a decoder may shrink an image to twice that first."""

    @property
    def crop(self) -> Crop | None:
        """A region of the upright image that is cut out, or None if the decoder may shrink the image first."""

    def __call__(
        self, image: Image.Image, *, rotation: int = 0, aspect: float = 1.0, time_s: float = 0.0
    ) -> NDArray[np.uint8]:
        """Return the pixels of an image; see `FrameTransform`."""


@dataclass(frozen=True)
class FrameTransform:
    """Converts images of any size to frames of one size."""

    size: int
    """Height and width of the result, in pixels."""
    channels: int
    """1 (grey) or 3 (RGB)."""
    fit: Literal["crop", "pad", "stretch"] = "crop"
    """How to make an image square: keep its centre, add black bars, or stretch it."""
    crop: Crop | None = None
    """Region of the upright image to cut out first; None keeps all of it."""

    def __call__(
        self, image: Image.Image, *, rotation: int = 0, aspect: float = 1.0, time_s: float = 0.0
    ) -> NDArray[np.uint8]:
        """Return the frame, uint8 [size, size, channels].

        Args:
            image: in mode RGB, RGBA (composited over black) or L.
            rotation: counter-clockwise rotation that makes it upright, in degrees; a multiple of 90.
            aspect: width of a pixel divided by its height.
            time_s: seconds since the first image, for a crop that moves.

        Raises:
            ValueError: the crop box is outside the image.
        """
        image, aspect, _ = upright(image, rotation, aspect)
        left, top, width, height = self._crop_box(image.width, image.height, time_s)
        if self.fit == "crop":
            # the largest square; the pixels themselves may not be square
            side = min(width * aspect, height)
            left, width = left + (width - side / aspect) / 2, side / aspect
            top, height = top + (height - side) / 2, side
        columns, rows = self.size, self.size
        if self.fit == "pad":
            scale = self.size / max(width * aspect, height)
            columns, rows = (max(1, round(length * scale)) for length in (width * aspect, height))
        box = (left, top, left + width, top + height)
        # Pillow's filter covers all source pixels of a result pixel. Reducing by an integer factor first is four times
        # as fast on large frames, with hardly any difference.
        resized = image.resize((columns, rows), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)
        if (columns, rows) != (self.size, self.size):
            canvas = Image.new(resized.mode, (self.size, self.size))
            canvas.paste(resized, ((self.size - columns) // 2, (self.size - rows) // 2))
            resized = canvas
        pixels = np.asarray(resized.convert("L" if self.channels == 1 else "RGB"))
        return pixels.reshape(self.size, self.size, self.channels)

    def _crop_box(self, width: int, height: int, time_s: float) -> tuple[float, float, float, float]:
        """Return the crop box clipped to the image; ValueError if nothing remains."""
        if self.crop is None:
            return 0, 0, width, height
        box = self.crop.at(time_s)[:4]
        left, top = max(0.0, box[0]), max(0.0, box[1])
        right, bottom = min(width, box[0] + box[2]), min(height, box[1] + box[3])
        if right - left < 1 or bottom - top < 1:
            raise ValueError(f"the crop box {box} is outside of the frame of {width}x{height} pixels")
        return left, top, right - left, bottom - top


@dataclass(frozen=True)
class SeveralCrops:
    """Cuts several regions out of the same image."""

    each: tuple[FrameTransform, ...]
    """One transform for each region, all with the same size and number of channels."""

    @property
    def size(self) -> int:
        """Height and width of each result, in pixels."""
        return self.each[0].size

    @property
    def crop(self) -> Crop | None:
        """One of the regions that are cut out."""
        return next((one.crop for one in self.each if one.crop is not None), None)

    def __call__(
        self, image: Image.Image, *, rotation: int = 0, aspect: float = 1.0, time_s: float = 0.0
    ) -> NDArray[np.uint8]:
        """Return the frames of all regions, uint8 [number of regions, size, size, channels]."""
        return np.stack([one(image, rotation=rotation, aspect=aspect, time_s=time_s) for one in self.each])


def upright(image: Image.Image, rotation: int, aspect: float) -> tuple[Image.Image, float, bool]:
    """Return an image without transparency and upright, its pixel aspect, and whether width and height are swapped.

    Args:
        rotation: counter-clockwise rotation that makes it upright, in degrees; a multiple of 90.
        aspect: width of a pixel divided by its height, before the rotation.
    """
    image = composite_over_black(image)
    quarters = round(rotation / 90) % 4
    if not quarters:
        return image, aspect, False
    return image.transpose(_ROTATIONS[quarters]), 1 / aspect if quarters % 2 else aspect, bool(quarters % 2)


def composite_over_black(image: Image.Image) -> Image.Image:
    """Composite an image with transparency over black; return other images unchanged."""
    if image.mode != "RGBA":
        return image
    canvas = Image.new("RGB", image.size)
    canvas.paste(image, mask=image.getchannel("A"))
    return canvas

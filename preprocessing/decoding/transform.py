"""From a decoded picture to a frame of a clip: upright, cropped, resized with anti-aliasing, grey or RGB."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MIN_SIDE = 8
"""Pixels; what is smaller shows nothing that could be enlarged."""

Crop = tuple[float, float, float, float]
"""Left, top, width, height of what is kept, in pixels of the upright picture."""

_TURNS = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}


@dataclass(frozen=True)
class FrameTransform:
    """Makes all frames of a dataset alike."""

    size: int
    """Height and width of the result, in pixels."""
    channels: int
    """1 (grey) or 3 (RGB)."""
    fit: Literal["crop", "pad", "stretch"] = "crop"
    """What is done with a picture that is not square: keep its middle, add black bars, or stretch it."""
    crop: Crop | None = None
    """What is kept of the upright picture before anything else; None keeps all."""

    def __call__(self, picture: Image.Image, *, rotation: int = 0, aspect: float = 1.0) -> NDArray[np.uint8]:
        """The frame, uint8 [size, size, channels].

        Args:
            picture: of mode RGB, RGBA (laid over black) or L.
            rotation: degrees, counter-clockwise, by which it must be turned to be upright; a multiple of 90.
            aspect: width of a pixel divided by its height.
        """
        picture = over_black(picture)
        turns = round(rotation / 90) % 4
        if turns:
            picture = picture.transpose(_TURNS[turns])
            aspect = 1 / aspect if turns % 2 else aspect
        left, top, width, height = self._kept(picture.width, picture.height)
        if self.fit == "crop":
            # the largest square, in pixels that may not be square themselves
            side = min(width * aspect, height)
            left, width = left + (width - side / aspect) / 2, side / aspect
            top, height = top + (height - side) / 2, side
        columns, rows = self.size, self.size
        if self.fit == "pad":
            scale = self.size / max(width * aspect, height)
            columns, rows = (max(1, round(length * scale)) for length in (width * aspect, height))
        box = (left, top, left + width, top + height)
        # Pillow's filter covers all source pixels of a result pixel; a reduction by whole numbers first is four times
        # as fast on large frames and hardly differs.
        resized = picture.resize((columns, rows), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)
        if (columns, rows) != (self.size, self.size):
            canvas = Image.new(resized.mode, (self.size, self.size))
            canvas.paste(resized, ((self.size - columns) // 2, (self.size - rows) // 2))
            resized = canvas
        pixels = np.asarray(resized.convert("L" if self.channels == 1 else "RGB"))
        return pixels.reshape(self.size, self.size, self.channels)

    def _kept(self, width: int, height: int) -> Crop:
        """The crop box, within the picture; ValueError if nothing of it is."""
        if self.crop is None:
            return 0, 0, width, height
        left, top = max(0.0, self.crop[0]), max(0.0, self.crop[1])
        right, bottom = min(width, self.crop[0] + self.crop[2]), min(height, self.crop[1] + self.crop[3])
        if right - left < 1 or bottom - top < 1:
            raise ValueError(f"the crop box {self.crop} is outside of the frame of {width}x{height} pixels")
        return left, top, right - left, bottom - top


def over_black(picture: Image.Image) -> Image.Image:
    """A picture with transparency laid over black; others as they are."""
    if picture.mode != "RGBA":
        return picture
    canvas = Image.new("RGB", picture.size)
    canvas.paste(picture, mask=picture.getchannel("A"))
    return canvas

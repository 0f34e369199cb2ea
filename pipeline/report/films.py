"""Moving pictures of a page: all frames of a clip in one still image, which a little script plays.

An animated image cannot be paused; a sheet of frames can, and steps, and stands still for who asked for less motion.
"""

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.report.pictures import Frames, data_uri, rgba

HIGHEST_SIDE = 16_000
"""Most pixels along a side of a sheet: WebP ends at 16,383."""
REFERENCE_CELL = 64
"""Frames of every size are shown as large as frames of this many pixels."""
QUALITY = 82


@dataclass(frozen=True)
class Film:
    """Frames that the page's script plays one after the other, for ever."""

    uri: str
    """The sheet: frames from top to bottom, column after column."""
    width: int
    """Pixels of one frame of the film."""
    height: int
    frames: int
    rows: int
    """Frames in one column of the sheet."""
    fps: float
    alt: str
    zoom: float
    """By how much it is to be enlarged, so that cells of all sizes look alike."""

    @property
    def columns(self) -> int:
        """Columns of the sheet."""
        return -(-self.frames // self.rows)


def film(clip: Frames, fps: float, alt: str, cell: int = REFERENCE_CELL, quality: int = QUALITY) -> Film:
    """A clip uint8 [T, H, W, C] as a film.

    Args:
        clip: its frames.
        fps: frames per second.
        alt: what is seen, for who cannot see it.
        cell: pixels of a side of one of the clips it is made of.
        quality: of the lossy compression, 0 to 100.
    """
    frames, height, width, _ = clip.shape
    rows = min(frames, HIGHEST_SIDE // height)
    columns = math.ceil(frames / rows)
    if columns * width > HIGHEST_SIDE:
        raise ValueError(f"{frames} frames of {width}x{height} do not fit into one picture; show fewer clips")
    sheet = np.zeros((rows * height, columns * width, 4), dtype=np.uint8)
    for number, picture in enumerate(rgba(clip)):
        column, row = divmod(number, rows)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = picture
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "WEBP", quality=quality, method=4, alpha_quality=100)
    return Film(data_uri(buffer.getvalue()), width, height, frames, rows, round(fps, 3), alt, REFERENCE_CELL / cell)


def shown_fps(fps: float | None, default: float = 8.0) -> float:
    """The speed at which clips of this speed are shown: their own, where it is known and a screen can show it."""
    if fps is None or not math.isfinite(fps) or fps <= 0:
        return default
    return min(fps, 60.0)

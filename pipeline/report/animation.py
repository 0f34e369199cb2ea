"""Animations of a page: a sprite sheet of all frames in one still image, which the page's script plays.

An animated image cannot be paused. A sprite sheet can be paused and stepped, and it stays still for viewers who prefer
reduced motion.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pipeline.report.images import Frames, data_uri, mosaic, to_rgba

if TYPE_CHECKING:
    from vdsm.evaluation.clips import LabelledClips

MAX_SHEET_SIDE = 16_000
"""Maximum side of a sprite sheet, in pixels; the limit of WebP is 16,383."""
REFERENCE_CELL = 64
"""Cells of every size are displayed as large as cells of this many pixels."""
DEFAULT_FPS = 8.0
"""Frames per second of clips whose rate is unknown."""
MAX_FPS = 60.0
QUALITY = 82
"""Quality of the lossy compression, 0 to 100."""
LARGE_CLIP, LARGE_CLIP_QUALITY = 40_000_000, 62
"""Number of values from which on a grid is compressed at a lower quality."""


@dataclass(frozen=True)
class Animation:
    """A sprite sheet that the page's script plays in a loop."""

    uri: str
    """Data URI of the sheet: frames from top to bottom, column after column."""
    width: int
    """Pixels of one frame."""
    height: int
    frames: int
    rows: int
    """Frames in one column of the sheet."""
    fps: float
    alt: str
    zoom: float
    """Scale at which it is displayed, so that cells of all sizes look equally large."""

    @property
    def columns(self) -> int:
        """Number of columns of the sheet."""
        return -(-self.frames // self.rows)


def make_animation(clip: Frames, fps: float, alt: str, cell: int = REFERENCE_CELL, quality: int = QUALITY) -> Animation:
    """Return a clip uint8 [T, H, W, C] as an animation.

    Args:
        clip: its frames.
        fps: frames per second.
        alt: text alternative for viewers who cannot see it.
        cell: side, in pixels, of one of the clips in a mosaic.
        quality: quality of the lossy compression, 0 to 100.

    Raises:
        ValueError: the frames do not fit into one image.
    """
    frames, height, width, _ = clip.shape
    rows = min(frames, MAX_SHEET_SIDE // height)
    columns = math.ceil(frames / rows)
    if columns * width > MAX_SHEET_SIDE:
        raise ValueError(f"{frames} frames of {width}x{height} pixels do not fit into one image; show fewer clips")
    sheet = np.zeros((rows * height, columns * width, 4), dtype=np.uint8)
    for number, frame in enumerate(to_rgba(clip)):
        column, row = divmod(number, rows)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = frame
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "WEBP", quality=quality, method=4, alpha_quality=100)
    uri = data_uri(buffer.getvalue())
    return Animation(uri, width, height, frames, rows, round(fps, 3), alt, zoom=REFERENCE_CELL / cell)


def animate_grid(
    rows: Sequence[Sequence[Frames | None]],
    fps: float,
    alt: str,
    cell: int,
    *,
    header_row: bool = False,
    header_column: bool = False,
) -> Animation:
    """Return a grid of clips as one animation; see `mosaic` and `make_animation`. Large grids are compressed more."""
    frames = mosaic(rows, header_row=header_row, header_column=header_column)
    return make_animation(frames, fps, alt, cell, QUALITY if frames.size < LARGE_CLIP else LARGE_CLIP_QUALITY)


def display_fps(fps: float | None) -> float:
    """Return the rate at which clips of this rate are displayed: their own, at most MAX_FPS; DEFAULT_FPS if unknown."""
    if fps is None or not math.isfinite(fps) or fps <= 0:
        return DEFAULT_FPS
    return min(fps, MAX_FPS)


def median_fps(clips: "LabelledClips") -> float | None:
    """Return the median frame rate of the clips whose rate is known, or None if there is none."""
    rates = np.asarray(getattr(clips, "fps", []), dtype=np.float64)
    rates = rates[np.isfinite(rates) & (rates > 0)]
    return float(np.median(rates)) if len(rates) else None

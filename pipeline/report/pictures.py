"""Clips as pictures that move: mosaics, and the files and data URIs that hold them."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Frames = NDArray[np.uint8]
"""uint8 [T, H, W, C]; C is 1 (grey), 3 (RGB) or 4 (RGBA)."""

GAP = 2
"""Pixels between the cells of a mosaic."""


def rgba(clip: Frames) -> Frames:
    """A grey or RGB clip with an opaque alpha channel: uint8 [T, H, W, 4]."""
    colour = np.repeat(clip, 3, axis=-1) if clip.shape[-1] == 1 else clip
    if colour.shape[-1] == 4:
        return colour
    opaque = np.full((*colour.shape[:-1], 1), 255, dtype=np.uint8)
    return np.concatenate((colour, opaque), axis=-1)


def mosaic(
    rows: Sequence[Sequence[Frames | None]], gap: int = GAP, header_row: bool = False, header_column: bool = False
) -> Frames:
    """Clips of one size side by side, moving together: uint8 [T, H', W', 4] with transparent gaps.

    Args:
        rows: cells, row by row; None leaves a cell empty.
        gap: pixels between cells.
        header_row: set the first row apart by a wider gap.
        header_column: set the first column apart by a wider gap.
    """
    length, height, width, _ = next(cell for row in rows for cell in row if cell is not None).shape
    below, beside = 3 * gap * header_row, 3 * gap * header_column
    columns = max(len(row) for row in rows)
    canvas = np.zeros(
        (length, len(rows) * (height + gap) - gap + below, columns * (width + gap) - gap + beside, 4), dtype=np.uint8
    )
    for down, row in enumerate(rows):
        for right, cell in enumerate(row):
            if cell is None:
                continue
            top = down * (height + gap) + (below if down else 0)
            left = right * (width + gap) + (beside if right else 0)
            canvas[:, top : top + height, left : left + width] = rgba(cell)
    return canvas


def enlarge(clip: Frames, scale: int) -> Frames:
    """Every pixel as a square of `scale` pixels."""
    return clip.repeat(scale, axis=1).repeat(scale, axis=2)


def over(clip: Frames, background: tuple[int, int, int]) -> Frames:
    """An RGBA clip without its transparency: uint8 [T, H, W, 3]."""
    alpha = clip[..., 3:].astype(np.float32) / 255
    blended = clip[..., :3] * alpha + np.asarray(background, dtype=np.float32) * (1 - alpha)
    result: Frames = blended.round().astype(np.uint8)
    return result


def webp(clip: Frames, fps: float, quality: int = 80) -> bytes:
    """An endlessly moving WebP."""
    pictures = [Image.fromarray(frame) for frame in rgba(clip)]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer, "WEBP", save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0,
        quality=quality, method=4, alpha_quality=100,
    )  # fmt: skip
    return buffer.getvalue()


def data_uri(data: bytes, kind: str = "image/webp") -> str:
    """The bytes as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"

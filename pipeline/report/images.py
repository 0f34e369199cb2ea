"""Clips as images: colour channels, mosaics of clips, animated WebP, and data URIs."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Frames = NDArray[np.uint8]
"""uint8 [T, H, W, C]; C is 1 (greyscale), 3 (RGB) or 4 (RGBA)."""

GAP = 2
"""Pixels between the cells of a mosaic."""


def to_rgba(clip: Frames) -> Frames:
    """Return a greyscale or RGB clip with an opaque alpha channel, and an RGBA clip unchanged: uint8 [T, H, W, 4]."""
    colour = np.repeat(clip, 3, axis=-1) if clip.shape[-1] == 1 else clip
    if colour.shape[-1] == 4:
        return colour
    opaque = np.full((*colour.shape[:-1], 1), 255, dtype=np.uint8)
    return np.concatenate((colour, opaque), axis=-1)


def mosaic(
    rows: Sequence[Sequence[Frames | None]], gap: int = GAP, header_row: bool = False, header_column: bool = False
) -> Frames:
    """Return clips of equal size tiled into one clip: uint8 [T, H', W', 4] with transparent gaps.

    Args:
        rows: cells, row by row; None leaves a cell empty.
        gap: pixels between cells.
        header_row: separate the first row by a wider gap.
        header_column: separate the first column by a wider gap.
    """
    length, height, width, _ = next(cell for row in rows for cell in row if cell is not None).shape
    gap_below, gap_right = 3 * gap * header_row, 3 * gap * header_column
    columns = max(len(row) for row in rows)
    canvas = np.zeros(
        (length, len(rows) * (height + gap) - gap + gap_below, columns * (width + gap) - gap + gap_right, 4),
        dtype=np.uint8,
    )
    for row_number, row in enumerate(rows):
        for column, cell in enumerate(row):
            if cell is None:
                continue
            top = row_number * (height + gap) + (gap_below if row_number else 0)
            left = column * (width + gap) + (gap_right if column else 0)
            canvas[:, top : top + height, left : left + width] = to_rgba(cell)
    return canvas


def enlarge(clip: Frames, scale: int) -> Frames:
    """Return the clip with every pixel repeated as a square of `scale` x `scale` pixels."""
    return clip.repeat(scale, axis=1).repeat(scale, axis=2)


def composite(clip: Frames, background: tuple[int, int, int]) -> Frames:
    """Blend an RGBA clip over a background colour: uint8 [T, H, W, 3]."""
    alpha = clip[..., 3:].astype(np.float32) / 255
    blended = clip[..., :3] * alpha + np.asarray(background, dtype=np.float32) * (1 - alpha)
    result: Frames = blended.round().astype(np.uint8)
    return result


def encode_webp(clip: Frames, fps: float) -> bytes:
    """Encode a clip as an animated WebP that loops forever."""
    images = [Image.fromarray(frame) for frame in to_rgba(clip)]
    buffer = io.BytesIO()
    images[0].save(
        buffer, "WEBP", save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0,
        quality=80, method=4, alpha_quality=100,
    )  # fmt: skip
    return buffer.getvalue()


def data_uri(webp: bytes) -> str:
    """Return a data URI that holds a WebP image."""
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"

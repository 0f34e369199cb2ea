"""A moving picture as a file: GIF, MP4, or PNG with the frames side by side; and clips as arrays."""

import io
import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.report.pictures import Frames, over

BACKGROUND = (24, 26, 30)
"""Colour between the cells, where a format has no transparency."""
SHORTEST_FILM_S = 4.0
"""A film of fewer seconds is repeated."""


def encode(clip: Frames, kind: Literal["gif", "mp4", "png"], fps: float) -> bytes:
    """The clip uint8 [T, H, W, 4] as the bytes of a file."""
    opaque = over(clip, BACKGROUND)
    if kind == "gif":
        return _gif(opaque, fps)
    if kind == "mp4":
        return _mp4(opaque, fps)
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(list(opaque), axis=1)).save(buffer, "PNG")
    return buffer.getvalue()


def _gif(clip: Frames, fps: float) -> bytes:
    """One palette for all frames, so that still parts do not flicker."""
    palette = Image.fromarray(np.concatenate(list(clip))).quantize(256, dither=Image.Dither.NONE)
    pictures = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in clip]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer, "GIF", save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0, disposal=1
    )
    return buffer.getvalue()


def _mp4(clip: Frames, fps: float) -> bytes:
    """H.264 in 4:2:0, which every player shows; it needs even sizes, so an edge may be repeated."""
    import imageio.v3 as imageio

    _, height, width, _ = clip.shape
    even = np.pad(clip, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    buffer = io.BytesIO()
    # A single pass of a clip may be over in a second: repeated, it makes a film.
    film = np.concatenate([even] * max(1, math.ceil(SHORTEST_FILM_S * fps / len(even))))
    imageio.imwrite(buffer, film, extension=".mp4", plugin="pyav", codec="libx264", fps=fps, out_pixel_format="yuv420p")
    return buffer.getvalue()


def npz(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Arrays as the bytes of a compressed .npz file, the same for the same arrays."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()

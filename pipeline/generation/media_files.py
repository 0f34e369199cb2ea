"""Media files of a clip: GIF, MP4, WebM, or a PNG with the frames side by side; and .npz files of clips."""

import io
import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.report.images import Frames, composite

BACKGROUND = (24, 26, 30)
"""RGB colour between the cells, in formats without transparency."""
MIN_VIDEO_S = 4.0
"""Shorter videos are repeated up to this many seconds."""
CODECS = {"mp4": "libx264", "webm": "libvpx-vp9"}
"""Format of a video -> its codec."""


def encode(
    clip: Frames, media_format: Literal["gif", "mp4", "webm", "png"], fps: float, *, repeat: bool = True
) -> bytes:
    """Encode a clip uint8 [T, H, W, 4] as the bytes of a file.

    Args:
        clip: the clip.
        media_format: format of the file.
        fps: frames per second.
        repeat: repeat a short video, which a player would end before anyone sees it; a GIF loops in any case.
    """
    opaque = composite(clip, BACKGROUND)
    if media_format == "gif":
        return _gif(opaque, fps)
    if media_format in CODECS:
        times = math.ceil(MIN_VIDEO_S * fps / len(opaque)) if repeat else 1
        return _video(np.concatenate([opaque] * max(1, times)), media_format, fps)
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(list(opaque), axis=1)).save(buffer, "PNG")
    return buffer.getvalue()


def _gif(clip: Frames, fps: float) -> bytes:
    """Encode with one palette for all frames, so that static areas do not flicker."""
    palette = Image.fromarray(np.concatenate(list(clip))).quantize(256, dither=Image.Dither.NONE)
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in clip]
    buffer = io.BytesIO()
    images[0].save(
        buffer, "GIF", save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0, disposal=1
    )
    return buffer.getvalue()


def _video(clip: Frames, media_format: str, fps: float) -> bytes:
    """Encode as H.264 or VP9 with 4:2:0 chroma, which every player supports."""
    import imageio.v3 as imageio

    # 4:2:0 needs even sizes.
    _, height, width, _ = clip.shape
    even = np.pad(clip, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    buffer = io.BytesIO()
    imageio.imwrite(
        buffer, even, extension=f".{media_format}", plugin="pyav", codec=CODECS[media_format], fps=fps,
        out_pixel_format="yuv420p",
    )  # fmt: skip
    return buffer.getvalue()


def encode_npz(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Encode arrays as a compressed .npz file; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()

"""Videos made for tests, whose frames tell their number."""

import io
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.clip import RejectedInputError
from preprocessing.decoding.timing import DecodedFrame
from preprocessing.decoding.transform import FrameTransform
from preprocessing.decoding.video import VideoReader

Pictures = Sequence[NDArray[np.uint8]]
STEP = 12
"""Grey levels from one frame of `ramp` to the next."""


def ramp(count: int, height: int = 48, width: int = 64) -> list[NDArray[np.uint8]]:
    """Up to 20 frames [H, W, 3] of one grey each, which tells the frame's number."""
    return [np.full((height, width, 3), 10 + STEP * number, np.uint8) for number in range(count)]


def numbers(frames: NDArray[np.uint8]) -> list[int]:
    """The numbers of frames [T, H, W, C] of `ramp`, after coding and resizing."""
    return [round((float(frame.mean()) - 10) / STEP) for frame in frames]


def write_video(
    target: Path | io.BytesIO,
    pictures: Pictures,
    *,
    codec: str = "libx264",
    fps: int | Fraction = 25,
    pix_fmt: str = "yuv420p",
    source: str = "rgb24",
    format: str | None = None,
    pts: Sequence[int] | None = None,
    rotation: int = 0,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
    more: Callable[[Any], None] | None = None,
) -> Path:
    """Encode pictures.

    Args:
        source: pixel format of the pictures.
        pts: their times, in frames; 0, 1, 2, ... if absent.
        more: is called with the container before the first frame, to add other streams.
    """
    import av

    height, width = pictures[0].shape[:2]
    file = str(target) if isinstance(target, Path) else target
    with av.open(file, "w", format=format, options=container or {}) as out:
        out.metadata.update(metadata or {})
        stream: Any = out.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base = 1 / Fraction(fps)
        if rotation:
            stream.set_display_rotation(rotation)
        if more is not None:
            more(out)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format=source)
            frame.pts, frame.time_base = (pts[number] if pts else number), 1 / Fraction(fps)
            for packet in stream.encode(frame):
                out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)
    return target if isinstance(target, Path) else Path()


SMALL = FrameTransform(size=32, channels=3)


def decode(data: bytes | Path, **settings: Any) -> tuple[list[DecodedFrame], RejectedInputError | None]:
    """Frames and damage."""
    file = data.open("rb") if isinstance(data, Path) else io.BytesIO(data)
    with file, VideoReader(file, **settings) as video:  # type: ignore[arg-type]
        return list(video.frames(SMALL)), video.damage


def seen(data: bytes | Path, **settings: Any) -> list[int]:
    """The numbers of the frames of an undamaged video made by `ramp`."""
    frames, damage = decode(data, **settings)
    assert damage is None
    return numbers(np.stack([frame.pixels for frame in frames]))

"""Videos made for tests. The frames of a `ramp` encode their number as a grey level."""

import io
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from preprocessing.clip import RejectedInputError
from preprocessing.decoding.timing import DecodedFrame
from preprocessing.decoding.transform import FrameTransform
from preprocessing.decoding.video import VideoReader

Images = Sequence[NDArray[np.uint8]]
STEP = 12
"""Grey levels from one frame of `ramp` to the next."""
SMALL = FrameTransform(size=32, channels=3)


def ramp(count: int, height: int = 48, width: int = 64) -> list[NDArray[np.uint8]]:
    """Return up to 20 uniform grey frames [H, W, 3], whose grey level encodes the frame number."""
    return [np.full((height, width, 3), 10 + STEP * number, np.uint8) for number in range(count)]


def numbers(frames: NDArray[np.uint8]) -> list[int]:
    """Return the numbers of frames [T, H, W, C] of `ramp`, after encoding and resizing."""
    return [round((float(frame.mean()) - 10) / STEP) for frame in frames]


def write_video(
    target: Path | io.BytesIO,
    images: Images,
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
    set_up: Callable[[Any], None] | None = None,
) -> Path:
    """Encode images.

    Args:
        source: pixel format of the images.
        pts: their times, in frames; 0, 1, 2, ... by default.
        set_up: called with the container before the first frame, for example to add other streams.
    """
    height, width = images[0].shape[:2]
    file = str(target) if isinstance(target, Path) else target
    with av.open(file, "w", format=format, options=container or {}) as out:
        out.metadata.update(metadata or {})
        stream: Any = out.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base = 1 / Fraction(fps)
        if rotation:
            stream.set_display_rotation(rotation)
        if set_up is not None:
            set_up(out)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format=source)
            frame.pts, frame.time_base = (pts[number] if pts else number), 1 / Fraction(fps)
            for packet in stream.encode(frame):
                out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)
    return target if isinstance(target, Path) else Path()


def decode(data: bytes | Path, **settings: Any) -> tuple[list[DecodedFrame], RejectedInputError | None]:
    """Return the frames of a video, and its damage."""
    file = data.open("rb") if isinstance(data, Path) else io.BytesIO(data)
    with file, VideoReader(file, **settings) as video:  # type: ignore[arg-type]
        return list(video.frames(SMALL)), video.damage


def decode_numbers(data: bytes | Path, **settings: Any) -> list[int]:
    """Return the numbers of the frames of an undamaged video of `ramp`."""
    frames, damage = decode(data, **settings)
    assert damage is None
    return numbers(np.stack([frame.pixels for frame in frames]))


def make_videos(folder: Path, count: int) -> None:
    """Write `count` videos of 160x120 pixels and 40 frames or more, one truncated video and one text file."""
    folder.mkdir(parents=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        scene = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
        images = [
            np.ascontiguousarray(np.roll(scene, (-2 * index, -3 * index), axis=(0, 1))[:120, :160])
            for index in range(40 + 4 * number)
        ]
        write_video(folder / f"video{number:02d}.mp4", images, options={"preset": "ultrafast", "g": "10"})
    # The index of an mp4 is at its end, so a truncated mp4 cannot be opened; a Matroska file can.
    with av.open(str(folder / "video00.mp4")) as complete, av.open(str(folder / "broken.mkv"), "w") as copy:
        source = complete.streams.video[0]
        target = copy.add_stream_from_template(source)
        for packet in complete.demux(source):
            if packet.dts is not None:
                packet.stream = target
                copy.mux(packet)
    data = (folder / "broken.mkv").read_bytes()
    (folder / "broken.mkv").write_bytes(data[: int(len(data) * 0.7)])
    (folder / "text.avi").write_text("no video\n" * 100)

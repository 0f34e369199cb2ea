"""Decode video files of any kind, including damaged and malicious ones.

The file is read through a Python file object, and libav may open nothing else: a "video" that is a playlist cannot make
it read other files or URLs. A fault that kills the process (a crash inside a codec, an endless loop) is not handled
here; `sandbox` decodes in a process that can be killed.
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from preprocessing.clip import RejectedInputError
from preprocessing.decoding.input_file import WatchedFile, open_input
from preprocessing.decoding.joins import Joins
from preprocessing.decoding.timing import DEFAULT_RATE, DecodedFrame, Frame, Window, assign_times, resample
from preprocessing.decoding.transform import MIN_SIDE, FrameTransform, Transform

if TYPE_CHECKING:
    import av

MAX_PIXELS = 4096 * 4096
"""Default size of the largest frame that is decoded, in pixels."""
STEADY = 8
"""After this many frames at a constant rate, a gap before the last frames means that the file was cut off."""
WIDEST_PIXEL = 4.0
"""Largest plausible ratio of pixel width to height, or height to width; a file that declares more is ignored."""
HIGHEST_RATE = 1000
"""Largest plausible frame rate, in frames per second; above it, a declared rate is the resolution of the timestamps."""


class VideoReader:
    """Reads the first video stream of a file, frame by frame, until its end or its first damage; a context manager.

    Args:
        file: seekable, opened for reading bytes.
        max_pixels: size of the largest frame that is decoded, in pixels; a few bytes can claim to be a huge image.

    Raises:
        RejectedInputError: the file is not a video that can be decoded.
        TransientError: the file could not be read.
    """

    rate: Fraction | None
    """Frames per second that the file declares, or None."""
    damage: RejectedInputError | None
    """Why `frames` ended before the end of the video; None if it did not."""

    def __init__(self, file: BinaryIO, *, max_pixels: int = MAX_PIXELS) -> None:
        import av
        from av.video.reformatter import VideoReformatter

        self._file = WatchedFile(file)
        self._max_pixels = max_pixels
        self._reformatter = VideoReformatter()  # shared: each frame would otherwise set up its own
        self.damage = None
        self._count = 0
        self._first = self._last = self._now = Fraction(0)
        self._shortest, self._longest = Fraction(10**9), Fraction(0)  # time between frames, in seconds
        self._part, self._begins_part, self._shift = 0, False, Fraction(0)
        options = {"protocol_whitelist": "none", "max_pixels": str(max_pixels)}
        try:
            # Metadata that is not UTF-8 is common, and not needed.
            self._container = av.open(self._file, "r", metadata_errors="ignore", options=options)
        except MemoryError:
            raise  # the caller knows whether this input is the cause
        except (av.FFmpegError, ValueError, OSError) as error:
            self._file.check()
            raise RejectedInputError("not a video that can be opened", _message(error)) from None
        try:
            self._stream = self._first_stream()
        except BaseException:
            self._container.close()
            raise
        rates = (self._stream.average_rate, self._stream.guessed_rate, self._stream.base_rate)
        self.rate = next((rate for rate in rates if rate and 0 < rate <= HIGHEST_RATE), None)

    def _first_stream(self) -> "av.VideoStream":
        import av

        cover = av.stream.Disposition.attached_pic  # the cover image of a song
        streams = [one for one in self._container.streams.video if not one.disposition & cover]
        if not streams:
            kinds = " and ".join(sorted({one.type for one in self._container.streams}))
            raise RejectedInputError("no video stream", f"it holds {kinds or 'nothing'}")
        # An animated AVIF begins with a still picture of itself.
        stream = next((one for one in streams if one.frames != 1), streams[0])
        if self._container.format.name == "webp_pipe" and self._is_animated_webp():
            raise RejectedInputError("animated WebP is not supported; convert it, for example to GIF or MP4")
        if stream.codec_context is None:
            raise RejectedInputError("no decoder for its codec")
        self._check_size(stream.codec_context.width, stream.codec_context.height)
        # One thread: a task has one core, and where damage is detected must not depend on the number of cores.
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"max_pixels": str(self._max_pixels)}
        return stream

    def _is_animated_webp(self) -> bool:
        position = self._file.tell()
        self._file.seek(0)
        head = self._file.read(21)
        self._file.seek(position)
        return head[12:16] == b"VP8X" and bool(head[20] & 2)

    @property
    def seconds(self) -> float | None:
        """Duration that the file declares, in seconds, or None."""
        return self._container.duration / 1e6 if self._container.duration else None

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def frames(self, transform: Transform) -> Iterator[DecodedFrame]:
        """Decode the frames, each transformed immediately. Set `damage` if they end too early.

        A transport stream resumes at the next keyframe after a join or damage, as a new part.

        Raises:
            TransientError: the file could not be read to its end.
        """
        import av

        joins = Joins(resumable=self._container.format.name == "mpegts")
        try:
            for packet in self._container.demux(self._stream):
                if not joins.accepts(packet):
                    continue
                if joins.part != self._part:
                    self._begin_part()
                try:
                    for frame in self._decode(packet):
                        yield self._convert(frame, transform)
                except (RejectedInputError, av.FFmpegError) as error:
                    if not joins.resumable:
                        raise
                    joins.fault = error
            if joins.fault is not None:
                raise joins.fault
            self._check_end()
        except RejectedInputError as fault:
            self.damage = RejectedInputError(fault.reason, "; ".join(filter(None, [self._position(), fault.where])))
        except MemoryError:
            raise  # the caller knows whether this input is the cause
        except (av.FFmpegError, ValueError, OverflowError) as error:
            self._file.check()
            message = _message(error)
            if isinstance(error, av.ArgumentError):  # all that a codec reports about a frame above max_pixels
                message += f", or frames of more than {self._max_pixels} pixels"
            self.damage = RejectedInputError("decoding failed", f"{self._position()}; {message}")
        except OSError:
            self._file.check()
            raise
        self._file.check()

    def _decode(self, packet: "av.Packet[Any]") -> Iterator["av.VideoFrame"]:
        """Yield the frames of a packet; RejectedInputError if it or one of them is damaged."""
        if packet.is_corrupt:
            raise RejectedInputError("data is missing or damaged")
        for frame in packet.decode():
            if frame.is_corrupt:
                raise RejectedInputError("a frame is damaged")
            self._keep_time(frame, at_end=packet.size == 0)
            yield frame

    def _begin_part(self) -> None:
        """Resume at a keyframe, with none of the frames before it."""
        self._stream.codec_context.flush_buffers()
        self._part += 1
        self._begins_part = True

    def _convert(self, frame: "av.VideoFrame", transform: Transform) -> DecodedFrame:
        self._check_size(frame.width, frame.height)
        transparent = frame.format.has_palette or any(part.is_alpha for part in frame.format.components)
        aspect = float(self._stream.sample_aspect_ratio or 1)
        aspect = aspect if 1 / WIDEST_PIXEL <= aspect <= WIDEST_PIXEL else 1.0
        width, height = frame.width, frame.height
        shrink = min(width, height) / (2 * transform.size)
        if shrink > 1 and transform.crop is None:
            # Shrink to twice the target size by area averaging while converting colours, which is much faster than two
            # steps. The transform does the rest with its better filter.
            width, height = round(width / shrink), round(height / shrink)
            aspect *= (frame.width * height) / (frame.height * width)
        kind = "rgba" if transparent else "rgb24"
        pixels = self._reformatter.reformat(frame, width, height, kind, interpolation="AREA", threads=1).to_ndarray()
        seconds = float(self._now - self._first)
        pixels = transform(Image.fromarray(pixels), rotation=frame.rotation, aspect=aspect, time_s=seconds)
        time = _time(frame)
        time = None if time is None else time + self._shift
        return DecodedFrame(pixels, time, (frame.width, frame.height), self._part)

    def _keep_time(self, frame: "av.VideoFrame", *, at_end: bool) -> None:
        """Count a frame; RejectedInputError if it is among the last ones and frames before it are missing.

        A file that was cut off ends with reference frames whose intermediate frames are missing. If the rate was
        constant so far, a gap reveals this.
        """
        time = _time(frame)
        if self._begins_part:
            self._begins_part = False
            if time is not None:
                self._shift = max(Fraction(0), self._last + 1 / (self.rate or DEFAULT_RATE) - time)
                self._last = time + self._shift
        if time is not None:
            time += self._shift
        else:
            time = self._last + 1 / (self.rate or DEFAULT_RATE) if self._count else Fraction(0)
        step = time - self._last
        if self._count and step > 0:
            steady = self._count > STEADY and self._longest < 1.5 * self._shortest
            if at_end and steady and step > 1.5 * self._longest:
                raise RejectedInputError("it ends too early", "frames before the last ones are missing")
            self._shortest, self._longest = min(self._shortest, step), max(self._longest, step)
        self._now = time
        self._first = self._first if self._count else time
        self._last = max(self._last, time) if self._count else time
        self._count += 1

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._max_pixels:
            raise RejectedInputError("frames are too large", f"{width}x{height} pixels, allowed are {self._max_pixels}")
        if width * height > 0 and min(width, height) < MIN_SIDE:
            raise RejectedInputError(
                "frames are too small", f"{width}x{height} pixels; {MIN_SIDE} are needed on each side"
            )

    def _check_end(self) -> None:
        """Raise RejectedInputError if the header declares many more frames, and a longer duration, than were decoded.

        Fewer frames alone are not damage: some containers count the pauses of a video with a variable rate.
        """
        stream, seconds = self._stream, Fraction(0)
        if not self._count:
            raise RejectedInputError("no frame could be decoded")
        if stream.frames > self._count + 3 and stream.duration and stream.time_base:
            seconds = stream.duration * stream.time_base
        elif "matroska" in self._container.format.name and len(self._container.streams) == 1:
            seconds = Fraction(self._container.duration or 0, 10**6)
        if self.rate and self._last - self._first + 4 / self.rate < seconds:
            raise RejectedInputError("it ends too early", f"its header tells of {float(seconds):.2f} s")

    def _position(self) -> str:
        seconds = float(self._last - self._first)
        return f"after frame {self._count}, {seconds:.2f} s" if self._count else "before the first frame"


def read_video(
    path: str, *, size: int, channels: int = 3, frames: int | None = None, fps: float | None = None
) -> tuple[NDArray[np.uint8], float]:
    """Return the beginning of a video as one clip, uint8 [T, size, size, channels], and its frames per second.

    Args:
        path: local file or s3:// URL.
        size: height and width of the frames, cropped to the centre square, in pixels.
        channels: 1 (grey) or 3 (RGB).
        frames: number of frames, or None for all.
        fps: resample to this many frames per second; None keeps every frame.

    Raises:
        RejectedInputError: the file is not a video, is damaged or has fewer frames.
        TransientError: the file could not be read.
    """
    kept: list[Frame] = []
    with open_input(path) as file, VideoReader(file) as video:
        timed = assign_times(video.frames(FrameTransform(size, channels)), video.rate)
        nominal = video.rate
        if fps is not None:
            nominal = Fraction(fps).limit_denominator(1000)
            timed = resample(timed, nominal)
        for frame in timed:
            kept.append(frame)
            if len(kept) == frames:
                break
        if (frames is None and video.damage) or not kept:
            raise video.damage or RejectedInputError("no frame could be decoded")
    if frames is not None and len(kept) < frames:
        raise video.damage or RejectedInputError("too short", f"{len(kept)} frames, {frames} are needed")
    return np.stack([frame.pixels for frame in kept]), Window(0, kept).rate(nominal)


def _time(frame: "av.VideoFrame") -> Fraction | None:
    """Return the timestamp of a frame in seconds, or None."""
    return None if frame.pts is None or not frame.time_base else frame.pts * Fraction(frame.time_base)


def _message(error: BaseException) -> str:
    """Return libav's message, without the error number and the position in its code."""
    if isinstance(error, OSError):  # of libav: reading the file itself did not fail
        return "its data breaks off"
    return str(getattr(error, "strerror", None) or error or type(error).__name__)

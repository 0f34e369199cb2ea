"""Cut the timed frames of one input into clips."""

from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from preprocessing.clip import Clip, Item, RejectedInputError
from preprocessing.decoding.timing import Frame, Window, WindowMaker
from preprocessing.decoding.transform import Crop, FrameTransform, SeveralCrops, Transform
from preprocessing.sources.catalogue import Segment
from preprocessing.sources.config import ClipsConfig
from preprocessing.sources.names import as_text


def make_transform(config: ClipsConfig, crops: Sequence[Crop | None]) -> Transform:
    """Return what turns an image into the pixels that a `Clipper` expects, given the crop boxes of an input."""
    each = tuple(FrameTransform(config.size, config.channels, config.fit, crop) for crop in crops)
    return each[0] if len(each) == 1 else SeveralCrops(each)


def _cropped(frame: Frame, segment: Segment) -> NDArray[np.uint8]:
    """Return the frame of one segment, uint8 [H, W, C]; where segments differ in their crops, all are in `pixels`."""
    pixels = frame.pixels
    return pixels[segment.crop] if pixels.ndim == 4 else pixels


class Clipper:
    """Cuts the frames of an input into clips, separately in each of its segments.

    Args:
        item: the input.
        segments: its labelled segments.
        config: length and stride of the clips.
        rate: nominal frames per second, if known.
    """

    def __init__(self, item: Item, segments: list[Segment], config: ClipsConfig, rate: Fraction | None) -> None:
        self._item, self._length, self._rate = item, config.clip_frames, rate
        stride = config.stride or config.clip_frames
        self._segments = [(segment, WindowMaker(config.clip_frames, stride)) for segment in segments]
        self._num_clips = self._num_frames = 0

    def add(self, frame: Frame) -> Iterator[Clip]:
        """Add the next frame, and yield the clips it completes."""
        self._num_frames += 1
        for number, (segment, maker) in enumerate(self._segments):
            if frame.time < segment.start_s or (segment.end_s is not None and frame.time >= segment.end_s):
                continue
            window = maker.add(frame)
            if window is not None:
                self._num_clips += 1
                part = f"-p{number}" if len(self._segments) > 1 else ""
                yield self._clip(window, segment, f"{self._item.key}{part}-{window.start:06d}")

    def check(self) -> None:
        """Raise RejectedInputError if the frames gave no clip."""
        if not self._num_clips:
            raise RejectedInputError(
                "too short", f"{self._num_frames} frames; a clip needs {self._length} without a gap"
            )

    def _clip(self, window: Window, segment: Segment, key: str) -> Clip:
        return Clip(
            key=key,
            frames=np.stack([_cropped(frame, segment) for frame in window.frames]),
            labels=segment.labels,
            identity=self._item.group or self._item.key,
            source=as_text(self._item.path),
            start_s=window.start_s,
            fps=window.rate(self._rate),
        )

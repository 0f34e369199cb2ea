"""From frames in time to the clips of one input."""

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from preprocessing.clip import Clip, Item, RejectedInputError
from preprocessing.decoding.timing import Frame, Window, WindowMaker
from preprocessing.sources.catalogue import Segment
from preprocessing.sources.config import ClipsConfig


class Clipper:
    """Cuts the frames of an input into clips, in each of its parts for itself.

    Args:
        item: the input.
        segments: its parts, with their labels.
        config: length and stride of the clips.
        rate: nominal frames per second, if known.
    """

    def __init__(self, item: Item, segments: list[Segment], config: ClipsConfig, rate: Fraction | None) -> None:
        self._item, self._length, self._rate = item, config.clip_frames, rate
        stride = config.stride or config.clip_frames
        self._parts = [(segment, WindowMaker(config.clip_frames, stride)) for segment in segments]
        self._given = self._frames = 0

    def add(self, frame: Frame) -> Iterator[Clip]:
        """Take the next frame; gives the clips that it completes."""
        self._frames += 1
        for number, (segment, maker) in enumerate(self._parts):
            if frame.time < segment.start_s or (segment.end_s is not None and frame.time >= segment.end_s):
                continue
            window = maker.add(frame)
            if window is not None:
                self._given += 1
                part = f"-p{number}" if len(self._parts) > 1 else ""
                yield self._clip(window, segment, f"{self._item.key}{part}-{window.start:06d}")

    def check(self) -> None:
        """RejectedInputError if there was no clip in all the frames."""
        if not self._given:
            raise RejectedInputError("too short", f"{self._frames} frames; a clip needs {self._length} without a gap")

    def _clip(self, window: Window, segment: Segment, key: str) -> Clip:
        return Clip(
            key=key,
            frames=np.stack([frame.pixels for frame in window.frames]),
            labels=segment.labels,
            identity=self._item.group or self._item.key,
            source=self._item.path,
            start_s=window.start_s,
            fps=window.rate(self._rate),
        )

"""Timing of frames: repaired timestamps, resampling to a frame rate, and windows of consecutive frames.

Everything works frame by frame, so a long video takes no more memory than one clip. Times are fractions, because the
choice of a frame must not depend on rounding.
"""

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain

import numpy as np
from numpy.typing import NDArray

REORDERED = 16
"""Number of frames over which timestamps may be out of order, the limit in H.264 and HEVC."""
LONGEST_GAP_S = 10
"""A pause longer than this (and than 20 frames) ends one run of frames and starts another, in seconds."""
DEFAULT_RATE = Fraction(25)
"""Frames per second of a video with neither timestamps nor a declared rate."""


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """A frame as the decoder returned it."""

    pixels: NDArray[np.uint8]
    """uint8 [H, W, C], already transformed for the clip."""
    time: Fraction | None
    """Timestamp in seconds, or None if it has none."""
    scene: tuple[int, int] = (0, 0)
    """Width and height in the video; a change of size starts a new run."""
    part: int = 0
    """Number of the recording, of several that were joined; each starts a new run."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame with its time."""

    pixels: NDArray[np.uint8]
    """uint8 [H, W, C]."""
    time: Fraction
    """Seconds since the first frame of the video."""
    run: int
    """Number of its run. Within a run there are no gaps and times increase."""


@dataclass(frozen=True, slots=True)
class Window:
    """The frames of a clip."""

    start: int
    """Index of its first frame among all frames that were added."""
    frames: list[Frame]

    @property
    def start_s(self) -> float:
        """Time of the first frame, in seconds."""
        return float(self.frames[0].time)

    def rate(self, nominal: Fraction | None) -> float:
        """Return the frames per second: the `nominal` rate if the timestamps agree with it within 5%."""
        span = self.frames[-1].time - self.frames[0].time
        if not span:
            return float(nominal or DEFAULT_RATE)
        measured = (len(self.frames) - 1) / span
        return float(nominal if nominal and abs(measured / nominal - 1) <= Fraction(1, 20) else measured)


def assign_times(frames: Iterable[DecodedFrame], rate: Fraction | None) -> Iterator[Frame]:
    """Assign times to frames, which stay in the decoder's order.

    The decoder's order is correct even if the container's timestamps are not. Timestamps out of order are sorted among
    their neighbours; missing or repeated ones are replaced using the nominal `rate`, in frames per second.
    """
    step = 1 / (rate or DEFAULT_RATE)
    gap = max(Fraction(LONGEST_GAP_S), 20 * step)
    waiting: deque[DecodedFrame] = deque()
    times: list[Fraction] = []
    clock = _Clock(step, gap)
    latest: Fraction | None = None
    for frame in frames:
        time = frame.time
        if time is None:
            time = Fraction(0) if latest is None else latest + step
        latest = time
        jumped = clock.last_read is not None and time < clock.last_read
        if waiting and (jumped or (frame.scene, frame.part) != (waiting[-1].scene, waiting[-1].part)):
            yield from clock.release(waiting, times, keep=0)
            clock.begin_run()
        waiting.append(frame)
        heapq.heappush(times, time)
        yield from clock.release(waiting, times, keep=REORDERED)
    yield from clock.release(waiting, times, keep=0)


class _Clock:
    """Releases frames with times that increase within a run."""

    def __init__(self, step: Fraction, gap: Fraction) -> None:
        self._step, self._gap = step, gap
        self._run = 0
        self._first: Fraction | None = None
        self._last: Fraction | None = None
        self.last_read: Fraction | None = None

    def begin_run(self) -> None:
        self._run += 1
        self._last = self.last_read = None

    def release(self, waiting: deque[DecodedFrame], times: list[Fraction], *, keep: int) -> Iterator[Frame]:
        while len(waiting) > keep:
            time = heapq.heappop(times)
            self._first = time if self._first is None else self._first
            if self._last is not None and time - self._last > self._gap:
                self.begin_run()
            self.last_read = time
            if self._last is not None and time <= self._last:
                time = self._last + self._step
            self._last = time
            yield Frame(waiting.popleft().pixels, time - self._first, self._run)


def resample(frames: Iterable[Frame], fps: Fraction) -> Iterator[Frame]:
    """Resample each run to `fps` frames per second: at every instant the nearest frame, the earlier one of two."""
    before: Frame | None = None
    start, count, spacing = Fraction(0), 0, 1 / fps
    for frame in chain(frames, [None]):
        if before is not None:
            follows = frame is not None and frame.run == before.run
            if follows and frame is not None:
                spacing = frame.time - before.time
            end = before.time + spacing / 2
            while (time := start + count / fps) < end or (follows and time == end):
                yield Frame(before.pixels, time, before.run)
                count += 1
        if frame is not None and (before is None or frame.run != before.run):
            start, count, spacing = frame.time, 0, 1 / fps
        before = frame


class WindowMaker:
    """Collects frames into windows of `length` frames, each starting `stride` frames after the previous one."""

    def __init__(self, length: int, stride: int) -> None:
        self._length, self._stride = length, stride
        self._kept: list[Frame] = []
        self._skip = 0
        self._run: int | None = None
        self._count = 0

    def add(self, frame: Frame) -> Window | None:
        """Add the next frame and return the window it completes, if any. No window spans two runs."""
        index = self._count
        self._count += 1
        if frame.run != self._run:
            self._run, self._skip = frame.run, 0
            self._kept.clear()
        if self._skip:
            self._skip -= 1
            return None
        self._kept.append(frame)
        if len(self._kept) < self._length:
            return None
        window = Window(index - self._length + 1, list(self._kept))
        self._kept = self._kept[self._stride :]
        self._skip = max(0, self._stride - self._length)
        return window

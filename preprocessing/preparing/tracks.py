"""Link the boxes found in successive frames into tracks, and divide tracks into pieces that one crop can hold."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from preprocessing.preparing.boxes import Box, around, iou, union

MIN_IOU = 0.2
NEAR = 0.6
"""A box continues a track if their centres are closer than this share of the longer side of either."""
ROOM = 1.8
"""A piece ends before its boxes together are this many times as long as a typical one of them."""
WALKS = 1.4
"""A crop that may move follows what reaches this many times as far as a typical box of it; a face, `ROOM` times."""
SMOOTH_S = 0.4
"""Deviation of the Gaussian that smooths the way of a track, in seconds."""
FINEST = 128
"""A crop that moves is never further from what it follows than its side divided by this."""


@dataclass(frozen=True)
class Way:
    """Where something is in each of successive frames, in a box of constant size."""

    first: int
    """Index of the first frame."""
    centres: NDArray[np.float64]
    """x and y in each frame, [T, 2]."""
    size: tuple[float, float]
    """Width and height of the box."""

    def box(self, index: int) -> Box:
        """Return the box in a frame; before the first it is that of the first, and so on."""
        x, y = self.centres[min(max(0, index - self.first), len(self.centres) - 1)]
        return around(float(x), float(y), *self.size)


@dataclass
class Track:
    """What was found in successive frames."""

    boxes: list[tuple[int, Box]] = field(default_factory=list)
    """Index of a frame and the box in it."""

    @property
    def first(self) -> int:
        """Index of its first frame."""
        return self.boxes[0][0]

    @property
    def last(self) -> int:
        """Index of its last frame."""
        return self.boxes[-1][0]

    @property
    def box(self) -> Box:
        """The box that holds it throughout, without the few that stand out."""
        corners = np.array([(b[0], b[1], b[0] + b[2], b[1] + b[3]) for _, b in self.boxes])
        left, top = np.percentile(corners[:, :2], 5, axis=0)
        right, bottom = np.percentile(corners[:, 2:], 95, axis=0)
        return float(left), float(top), float(right - left), float(bottom - top)

    @property
    def side(self) -> float:
        """Longer side of a typical box."""
        return float(np.median([max(box[2:]) for _, box in self.boxes]))

    @property
    def length(self) -> int:
        """Number of frames from its first to its last."""
        return self.last - self.first + 1

    @property
    def reach(self) -> float:
        """How many times as long as a typical box all boxes together are."""
        return max(union(box for _, box in self.boxes)[2:]) / self.side

    def way(self, fps: float, room: float) -> Way:
        """Return its smoothed way.

        Args:
            fps: frames per second.
            room: factor for the sides of a box that nearly always holds it.
        """
        corners = np.array([(index, box[0], box[1], box[2], box[3]) for index, box in self.boxes])
        width, height = room * np.percentile(corners[:, 3:], 95, axis=0)
        frames = np.arange(self.first, self.last + 1)
        centres = corners[:, 1:3] + corners[:, 3:] / 2
        smoothed = [_smoothed(np.interp(frames, corners[:, 0], values), SMOOTH_S * fps) for values in centres.T]
        return Way(self.first, np.stack(smoothed, axis=1), (float(width), float(height)))


def _smoothed(values: NDArray[np.float64], deviation: float) -> NDArray[np.float64]:
    """Return values smoothed by a Gaussian. At both ends they are continued by their reflection in the last one."""
    reach = min(round(3 * deviation), len(values) - 1)
    if reach < 1:
        return values
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    extended = np.pad(values, reach, mode="reflect", reflect_type="odd")
    return np.convolve(extended, weights / weights.sum(), mode="valid")


def link(found: Iterable[tuple[int, Sequence[Box]]], *, max_gap: int) -> list[Track]:
    """Return the tracks of boxes found in successive frames.

    Args:
        found: index of a frame and the boxes in it, in order.
        max_gap: number of frames for which a track may be missed.
    """
    active: list[Track] = []
    ended: list[Track] = []
    for index, boxes in found:
        ended += [track for track in active if index - track.last > max_gap]
        active = [track for track in active if index - track.last <= max_gap]
        pairs = sorted(
            (
                (-_likeness(track.boxes[-1][1], box), number, other)
                for number, track in enumerate(active)
                for other, box in enumerate(boxes)
                if _likeness(track.boxes[-1][1], box) > 0
            ),
        )
        used_tracks, used_boxes = set[int](), set[int]()
        for _, number, other in pairs:
            if number not in used_tracks and other not in used_boxes:
                used_tracks.add(number)
                used_boxes.add(other)
                active[number].boxes.append((index, boxes[other]))
        active += [Track([(index, box)]) for other, box in enumerate(boxes) if other not in used_boxes]
    return sorted(ended + active, key=lambda track: (track.first, track.boxes[0][1]))


def _likeness(one: Box, other: Box) -> float:
    """Return how well a box continues another, above 0 if it does."""
    shared = iou(one, other)
    if shared >= MIN_IOU:
        return 1 + shared
    across = one[0] + one[2] / 2 - other[0] - other[2] / 2, one[1] + one[3] / 2 - other[1] - other[3] / 2
    reach = NEAR * max(*one[2:], *other[2:])
    similar = 0.5 < max(one[2:]) / max(other[2:]) < 2
    return max(0.0, 1 - float(np.hypot(*across)) / reach) if similar else 0.0


def pieces(track: Track, min_frames: int) -> list[Track]:
    """Divide a track where it has moved too far for one crop; leave out pieces of fewer than `min_frames` frames."""
    found: list[Track] = []
    current: list[tuple[int, Box]] = []
    limit = ROOM * track.side
    for entry in track.boxes:
        if current and max(union(box for _, box in [*current, entry])[2:]) > limit:
            found.append(Track(current))
            current = []
        current.append(entry)
    if current:
        found.append(Track(current))
    return [piece for piece in found if piece.length >= min_frames]


def moves_of(squares: Sequence[Box], times: Sequence[float], scale: tuple[float, float]) -> list[list[float]]:
    """Return where a crop is over time: seconds, left and top of each corner of its way.

    Args:
        squares: the crop in each frame.
        times: time of each frame, in seconds.
        scale: factors by which left and top are multiplied.
    """
    points = np.array([(box[0] * scale[0], box[1] * scale[1]) for box in squares])
    kept = corners_of(points, tolerance=squares[0][2] * scale[0] / FINEST)
    return [[round(float(times[n]), 6), *(round(float(value), 1) for value in points[n])] for n in kept]


def corners_of(points: NDArray[np.float64], tolerance: float) -> list[int]:
    """Return the indices of the points [N, D], at equal times, between which straight lines stay near all of them.

    Args:
        tolerance: largest distance of a point from the line at its time (Douglas and Peucker).
    """
    last = len(points) - 1
    kept, waiting = {0, last}, [(0, last)]
    while waiting:
        first, end = waiting.pop()
        if end - first < 2:
            continue
        share = np.linspace(0, 1, end - first + 1)[:, None]
        away = np.linalg.norm(points[first] * (1 - share) + points[end] * share - points[first : end + 1], axis=1)
        furthest = first + int(away.argmax())
        if away.max() > tolerance:
            kept.add(furthest)
            waiting += [(first, furthest), (furthest, end)]
    return sorted(kept)

"""Boxes (left, top, width, height): overlap, union, and the square crop around one."""

from collections.abc import Iterable, Sequence

from preprocessing.linked import first_linked

Box = tuple[float, float, float, float]
"""Left, top, width and height, in pixels."""

BELOW = 0.25
"""Share of the room above and below that lies below: people stand on something, and raise their hands."""


def overlap(one: Box, other: Box) -> float:
    """Return the area that two boxes share."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def iou(one: Box, other: Box) -> float:
    """Return intersection over union of two boxes, 0 to 1."""
    shared = overlap(one, other)
    return shared / (one[2] * one[3] + other[2] * other[3] - shared) if shared else 0.0


def inside(one: Box, other: Box) -> float:
    """Return the share of the area of `one` that lies in `other`."""
    return overlap(one, other) / max(1e-9, one[2] * one[3])


def union(boxes: Iterable[Box]) -> Box:
    """Return the smallest box that holds all boxes."""
    left, top, right, bottom = zip(*((box[0], box[1], box[0] + box[2], box[1] + box[3]) for box in boxes))
    return min(left), min(top), max(right) - min(left), max(bottom) - min(top)


def enlarged(box: Box, pixels: float) -> Box:
    """Return a box with a border of `pixels` added on each side."""
    return box[0] - pixels, box[1] - pixels, box[2] + 2 * pixels, box[3] + 2 * pixels


def centre(box: Box) -> tuple[float, float]:
    """Return the point in the middle of a box."""
    return box[0] + box[2] / 2, box[1] + box[3] / 2


def around(x: float, y: float, width: float, height: float) -> Box:
    """Return the box of a size around a point."""
    return x - width / 2, y - height / 2, width, height


def scaled(box: Box, factor: float) -> Box:
    """Return a box whose sides are multiplied, around the same centre."""
    width, height = box[2] * factor, box[3] * factor
    return box[0] + (box[2] - width) / 2, box[1] + (box[3] - height) / 2, width, height


def merged(boxes: Sequence[Box], gap: float) -> list[list[int]]:
    """Return groups of indices of boxes that are closer than `gap` times the longer side of the larger of the two."""
    ones, others = [], []
    for index, box in enumerate(boxes):
        for other in range(index):
            room = gap * max(*box[2:], *boxes[other][2:])
            if overlap(enlarged(box, room / 2), enlarged(boxes[other], room / 2)):
                ones.append(index)
                others.append(other)
    found: dict[int, list[int]] = {}
    for index, first in enumerate(first_linked(len(boxes), ones, others).tolist()):
        found.setdefault(first, []).append(index)
    return list(found.values())


def square_around(box: Box, margin: float, width: int, height: int, *, below: float = BELOW) -> Box:
    """Return the square crop around a box, shifted into the frame, and no larger than the frame.

    Args:
        margin: its side, as a multiple of the longer side of the box.
        width: width of the frame, in pixels.
        height: height of the frame, in pixels.
        below: share of the room above and below the box that lies below it.
    """
    side = min(max(box[2], box[3]) * margin, width, height)
    left = centre(box)[0] - side / 2
    top = box[1] + box[3] + below * (side - box[3]) - side
    return min(max(0.0, left), width - side), min(max(0.0, top), height - side), side, side

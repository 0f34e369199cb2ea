"""What moves before a still background: how much each pixel changes over a part, and the regions that change together.

Two maps are compared with their noise. The first is the deviation of a pixel from the background, the median over time.
It also contains soft shadows on a wall, which the second one does not: the deviation of its fine structure. A region
must be active in both, and contain pixels that change clearly; what changes faintly around these belongs to it, as the
body of someone who waves does, because nobody stands perfectly still.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from preprocessing.preparing.boxes import Box, merged, union
from preprocessing.spread import evenly_spread

Grey = NDArray[np.uint8]
Map = NDArray[np.float32]

MEDIAN_FRAMES = 25
"""Frames, spread over the part, whose median is the background."""
NOISE_SHARE = 30
"""Percentile of the change over all pixels that counts as noise: people seldom fill 70% of a picture."""
GAP = 0.1
"""Regions closer than this share of the longer side of the larger one belong together."""
LEGLESS, TALLEST = 1.7, 1.9
"""A region whose height is less than LEGLESS times its width may lack the legs of someone who waves: it grows down, to
at most TALLEST times its width, along what changes very faintly."""
SPECK = 6
"""Fewer pixels together than this are noise."""
SMALLEST = 0.02
"""Smallest longer side of a region, as a share of that of the frame."""


@dataclass(frozen=True)
class Activity:
    """The change of each pixel over a part, in grey levels (root mean square)."""

    total: Map
    """Deviation from the background, float32 [H, W]."""
    fine: Map
    """Deviation of the fine structure, float32 [H, W]."""
    background: Map
    """The median over time, float32 [H, W]."""

    @property
    def noise(self) -> float:
        """Change of pixels where nothing moves, in grey levels."""
        return float(np.percentile(self.total, NOISE_SHARE))

    def motion(self, box: Box) -> float:
        """Return the change of the most active twentieth of a box, in grey levels."""
        left, top, width, height = (round(value) for value in box)
        inside = self.total[max(0, top) : top + height, max(0, left) : left + width]
        return float(np.percentile(inside, 95)) if inside.size else 0.0


def measure_activity(frames: Sequence[Grey]) -> Activity:
    """Return the activity of consecutive grey frames of one size, uint8 [H, W] each."""
    chosen = np.stack([frames[index] for index in evenly_spread(len(frames), MEDIAN_FRAMES)])
    background = cv2.GaussianBlur(np.median(chosen, axis=0).astype(np.float32), (3, 3), 0)
    total, fine = np.zeros_like(background), np.zeros_like(background)
    sigma = max(1.0, max(background.shape) / 160)
    for frame in frames:
        change = cv2.GaussianBlur(frame, (3, 3), 0).astype(np.float32) - background
        total += change**2
        fine += (change - cv2.GaussianBlur(change, (0, 0), sigma)) ** 2
    return Activity(np.sqrt(total / len(frames)), np.sqrt(fine / len(frames)), background)


def active_regions(activity: Activity) -> list[Box]:
    """Return the boxes of what moves, the most active first."""
    total, fine = activity.total, activity.fine
    noise, fine_noise = activity.noise, float(np.percentile(fine, NOISE_SHARE))
    clear = total > 3 * noise + 3
    faint = ((total > 2 * noise + 1) & (fine > 1.5 * fine_noise + 1.5)).astype(np.uint8)
    long_side = max(total.shape)
    reach = max(3, round(0.03 * long_side) | 1)
    faint = _without_specks(faint)
    faint = cv2.morphologyEx(faint, cv2.MORPH_CLOSE, np.ones((reach, reach), np.uint8)).astype(np.uint8)
    faint = cv2.morphologyEx(faint, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)).astype(np.uint8)
    count, parts, statistics, _ = cv2.connectedComponentsWithStats(faint, connectivity=8)
    energy = np.bincount(parts.ravel(), weights=total.ravel(), minlength=count)
    seeds = np.bincount(parts.ravel(), weights=clear.ravel().astype(float), minlength=count)
    kept = [index for index in range(1, count) if seeds[index] >= 6]
    boxes: list[Box] = [tuple(float(value) for value in statistics[index, :4]) for index in kept]  # type: ignore[misc]
    below = ((total > 1.2 * noise + 0.6) & (fine > 1.2 * fine_noise + 0.7)).astype(np.uint8)
    found = [
        (sum(energy[kept[index]] for index in group), _with_legs(union(boxes[index] for index in group), below, reach))
        for group in merged(boxes, GAP)
    ]
    large = [(value, box) for value, box in found if max(box[2:]) >= SMALLEST * long_side]
    return [box for _, box in sorted(large, reverse=True)]


def _without_specks(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a mask without the few pixels that noise leaves here and there where it is stronger than elsewhere."""
    _, parts, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    return np.asarray(mask * (statistics[:, 4] >= SPECK)[parts], np.uint8)


def _with_legs(box: Box, below: NDArray[np.uint8], reach: int) -> Box:
    """Return a region, grown down where it may lack legs, along the pixels marked in `below` within its columns."""
    left, top, width, height = box
    if height >= LEGLESS * width:
        return box
    columns = cv2.morphologyEx(
        below[:, int(left) : int(left + width)], cv2.MORPH_CLOSE, np.ones((reach, reach), np.uint8)
    )
    columns = cv2.morphologyEx(columns, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, parts, statistics, _ = cv2.connectedComponentsWithStats(columns.astype(np.uint8), connectivity=8)
    joined = [index for index in np.unique(parts[int(top) : int(top + height)]) if index and statistics[index, 4] > 30]
    bottom = max([top + height, *(float(statistics[index, 1] + statistics[index, 3]) for index in joined)])
    return left, top, width, min(bottom - top, TALLEST * width)


def blobs(change: Map, noise: float) -> list[Box]:
    """Return the boxes of what differs from the background in one frame.

    Args:
        change: difference from the background in grey levels, float32 [H, W].
        noise: its size where nothing moves, in grey levels.
    """
    long_side = max(change.shape)
    reach = max(3, round(0.03 * long_side) | 1)
    mask = (change > max(10.0, 5 * noise)).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((reach, reach), np.uint8)).astype(np.uint8)
    count, _, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    return [
        tuple(float(value) for value in statistics[index, :4])  # type: ignore[misc]
        for index in range(1, count)
        if max(statistics[index, 2:4]) >= SMALLEST * long_side
    ]

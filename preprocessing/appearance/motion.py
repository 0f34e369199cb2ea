"""Clips whose look is seen doing a single thing, found without labels.

A pair tells who is seen from what happens, because it shows one person doing two things. A look that is seen doing only
one, such as somebody who changed clothes for an action, or a video that looks like no other, gives no such pair: its
static code would take the action along. Where a video moves tells its motion from others well enough to find these.

Letters: T frames, H W image, C channels, N clips, V videos.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.appearance.descriptors import grey
from preprocessing.appearance.mining import sums_by_video
from preprocessing.appearance.pairs import MinedPairs, Video

CELLS = 8
"""Cells along a side of a motion map."""
ONE_MOTION = 0.4
"""A video shows the motion of its partners if the distance to their motion maps is less than this share of the median
over all videos with partners."""
MAX_SHARE = 0.5
"""Largest share of clips that may count as such: with more, the pairs of the others are too few to start with."""
MAX_CLIPS = 20_000
"""Largest number of clips whose motion is compared, because their frames are read for it."""


def motion_map(frames: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return how much the frames [T, H, W, C] change in each cell of a grid: [CELLS * CELLS], sums of grey levels."""
    change = np.abs(np.diff(grey(frames), axis=0)).sum(axis=0, dtype=np.int64)
    rows, columns = (np.arange(side) * CELLS // side for side in change.shape)
    cells = np.zeros((CELLS, CELLS), dtype=np.int64)
    np.add.at(cells, (rows[:, None], columns[None, :]), change)
    return cells.ravel()


def shows_one_motion(pairs: MinedPairs, video: Video, maps: Any) -> NDArray[np.bool_]:
    """Return for each clip whether its look is seen doing a single thing: bool [N].

    Args:
        pairs: the clips that look alike.
        video: the videos that they are cut from.
        maps: motion maps of the clips, [N, CELLS * CELLS].
    """
    videos, numbers = np.unique(video.sources, return_inverse=True)
    sums = sums_by_video(maps, numbers.astype(np.int64))
    roots = np.sqrt(sums / np.maximum(sums.sum(axis=1, keepdims=True), 1))  # unit vectors
    links = np.unique(np.stack([numbers[pairs.firsts], numbers[pairs.partners]], axis=1), axis=0)
    links = links[links[:, 0] != links[:, 1]]
    partners = np.bincount(links[:, 0], minlength=len(videos))
    apart = 1 - (roots[links[:, 0]] * roots[links[:, 1]]).sum(axis=1)
    variety = np.bincount(links[:, 0], weights=apart, minlength=len(videos)) / np.maximum(partners, 1)
    usual = float(np.median(variety[partners > 0])) if len(links) else 0.0
    found: NDArray[np.bool_] = (variety < ONE_MOTION * usual)[numbers]
    return found if found.mean() <= MAX_SHARE else np.zeros(len(found), dtype=bool)

"""Scene cuts, by PySceneDetect's adaptive detector, which compares a change with those of the frames around it."""

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

LONG_SIDE = 192
"""Longer side of the frames that are compared, in pixels."""
MIN_FRAMES = 3
"""Shortest shot, in frames."""


class CutFinder:
    """Finds cuts while frames arrive; a cut is reported a few frames after it.

    Args:
        threshold: how many times a change must exceed those of the frames around it.
        change: least change of a cut, in levels of 255.
    """

    DELAY = 4
    """Number of frames after which a cut has been reported."""

    def __init__(self, threshold: float, change: float) -> None:
        from scenedetect.detectors import AdaptiveDetector

        self._detector: Any = AdaptiveDetector(
            adaptive_threshold=threshold, min_scene_len=MIN_FRAMES, window_width=2, min_content_val=change
        )
        self._count = 0

    def add(self, frame: NDArray[np.uint8]) -> Iterator[int]:
        """Add a frame, uint8 [H, W, 3], and yield the index of each frame that turns out to begin a shot."""
        scale = LONG_SIDE / max(frame.shape[:2])
        if scale < 1:
            frame = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.uint8)
        yield from self._detector.process_frame(self._count, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        self._count += 1

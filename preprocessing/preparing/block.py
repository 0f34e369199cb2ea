"""The frames of a shot, or of a piece of a long one, that are examined together."""

import bisect
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass
class Block:
    """Consecutive frames of a video."""

    number: int = 0
    """Index of the first frame in the video."""
    times: list[float] = field(default_factory=list)
    """Times of all frames, in seconds."""
    frames: list[NDArray[np.uint8]] = field(default_factory=list)
    """Those of the frames that are examined, uint8 [H, W, 3] each."""
    shown: list[float] = field(default_factory=list)
    """Times of `frames`, in seconds."""

    def split(self, seconds: float) -> tuple["Block", "Block", float]:
        """Return the frames of the first `seconds`, those after them, and the time between both."""
        limit = self.times[0] + seconds
        count, shown = bisect.bisect_left(self.times, limit), bisect.bisect_left(self.shown, limit)
        first = Block(self.number, self.times[:count], self.frames[:shown], self.shown[:shown])
        rest = Block(self.number + count, self.times[count:], self.frames[shown:], self.shown[shown:])
        return first, rest, (self.times[count - 1] + self.times[count]) / 2

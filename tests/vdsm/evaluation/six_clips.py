"""Six clips of three identities, small enough to write out every score of them by hand."""

import numpy as np
from numpy.typing import NDArray


class Six:
    """The frames of clip n have the values 10 n, 10 n + 1 and so on."""

    keys = ("a0", "a1", "b0", "b1", "c0", "c1")
    identities = ("ann", "ann", "bob", "bob", "cat", "cat")
    vocabulary = {"action": ["walk", "run"], "hat": ["off", "on"], "hair": ["short", "long", "none"]}  # noqa: RUF012
    clip_frames = (3, 3, 3, 3, 3, 4)

    def __init__(self) -> None:
        self.labels = {
            "action": np.array([0, 1, 0, 1, 0, 0]),
            "hat": np.array([0, 0, 1, 1, 1, 1]),
            "hair": np.array([0, 0, 1, 1, 2, 2]),
        }
        self.factors = {"weight": np.arange(6) / 2}

    def __len__(self) -> int:
        return 6

    def frames(self, index: int) -> NDArray[np.uint8]:
        values = 10 * index + np.arange(self.clip_frames[index])
        return np.broadcast_to(values[:, None, None, None], (len(values), 2, 2, 1)).astype(np.uint8)

    def tracks(self, index: int) -> dict[str, NDArray[np.float64]]:
        return {"angle": index + np.arange(self.clip_frames[index]) / 4}


CLIPS = Six()
IDENTITY = np.array([0, 0, 1, 1, 2, 2])
"""Number of the identity of each clip."""
SEED = 5

"""Choose a few of many things, evenly spread."""

import numpy as np
from numpy.typing import NDArray


def evenly_spread(count: int, limit: int) -> NDArray[np.int64]:
    """Return up to `limit` of the numbers below `count`, evenly spread and ascending; both ends if there are two."""
    return np.unique(np.linspace(0, count - 1, min(limit, count)).round().astype(np.int64))

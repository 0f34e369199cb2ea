"""Groups of things that are linked, directly or through others."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def first_linked(count: int, ones: ArrayLike, others: ArrayLike) -> NDArray[np.int64]:
    """Return for each of `count` things the number of the first one that it is linked with, or its own: int64 [count].

    Args:
        count: number of things.
        ones: number of the thing at one end of each link, [N].
        others: that at the other end, [N].
    """
    first, second = np.asarray(ones, dtype=np.int64), np.asarray(others, dtype=np.int64)
    group = np.arange(count)
    while True:  # the smallest number spreads along the links, in both directions
        spread = group.copy()
        np.minimum.at(spread, first, group[second])
        np.minimum.at(spread, second, group[first])
        spread = np.minimum(spread, spread[spread])
        if np.array_equal(spread, group):
            return group
        group = spread

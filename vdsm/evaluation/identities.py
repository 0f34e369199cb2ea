"""Identities as numbers, by which clips are grouped."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def identity_indices(names: Sequence[str]) -> NDArray[np.int64]:
    """Return an index per clip: int64 [N], the same for the same name, from 0 in the order of the sorted names."""
    # As objects: NumPy's own strings lose NULs at their end, which makes two names one.
    return np.unique(np.asarray(names, dtype=object), return_inverse=True)[1].astype(np.int64)

"""64-bit digests of names, by which any number of them can be compared and ordered."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Digests = NDArray[np.uint64]
"""[N] 64-bit digests of names."""


def digests(names: Iterable[str]) -> Digests:
    """Return a 64-bit digest of each name, [N]: the start of the SHA-256 of its UTF-8.

    Indexes of format 3 store them, and the order of a training depends on them: they must not change.
    """
    joined = b"".join(hashlib.sha256(name.encode()).digest()[:8] for name in names)
    return np.frombuffer(joined, dtype=">u8").astype(np.uint64)

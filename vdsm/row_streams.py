"""Random numbers for some rows of a batch, which do not depend on how many other rows are drawn.

Each row has a stream of its own: the counter-based generator Philox (Salmon et al., 2011, "Parallel random numbers: as
easy as 1, 2, 3") under the key (seed, row). A process thus draws the noise of its own samples of a global batch, with
the same values however many processes share it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.random.bit_generator import ISeedSequence
from torch import Tensor


class _Key(ISeedSequence):
    """The key of a stream, given as a seed: `Philox(key=...)` would first read a seed from the operating system.

    That takes twice as long as all else of making a stream.
    """

    def __init__(self, key: Any) -> None:
        self._key = key

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> Any:
        """Return the key."""
        return self._key


class RowStreams:
    """One stream for each of some rows, on the CPU. Each call continues the streams.

    Args:
        seed: in [0, 2^64); other seeds give independent streams.
        rows: numbers of the rows, such as their positions in a global batch.
    """

    device = torch.device("cpu")

    def __init__(self, seed: int, rows: Sequence[int]) -> None:
        keys = np.empty((len(rows), 2), dtype=np.uint64)
        keys[:, 0], keys[:, 1] = seed, rows
        seeds: list[Any] = [_Key(key) for key in keys]  # NumPy takes them, but its types name a subclass of its own
        self._streams = [np.random.Generator(np.random.Philox(seed)) for seed in seeds]

    def normal(self, *shape: int) -> Tensor:
        """Return standard Normal numbers, float32 [rows, *shape]."""
        values = np.empty((len(self._streams), *shape), dtype=np.float32)
        for row, stream in enumerate(self._streams):
            values[row] = stream.standard_normal(shape, dtype=np.float32)
        return torch.from_numpy(values)

    def uniform(self, *shape: int) -> Tensor:
        """Return uniform numbers in [0, 1), float32 [rows, *shape]."""
        values = np.empty((len(self._streams), *shape), dtype=np.float32)
        for row, stream in enumerate(self._streams):
            values[row] = stream.random(shape, dtype=np.float32)
        return torch.from_numpy(values)


Generator = torch.Generator | RowStreams
"""A generator of numbers for all rows of a batch, or streams of some of its rows."""


def normal(generator: Generator, rows: int, *shape: int) -> Tensor:
    """Return standard Normal numbers [rows, *shape], on the generator's device."""
    if isinstance(generator, RowStreams):
        return generator.normal(*shape)
    return torch.randn(rows, *shape, generator=generator, device=generator.device)


def uniform(generator: Generator, rows: int, *shape: int) -> Tensor:
    """Return uniform numbers in [0, 1), [rows, *shape], on the generator's device."""
    if isinstance(generator, RowStreams):
        return generator.uniform(*shape)
    return torch.rand(rows, *shape, generator=generator, device=generator.device)

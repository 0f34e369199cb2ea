"""The random numbers of a step or of a validation, for this rank's rows of a batch.

Each purpose has a seed of its own; see `pipeline.training.draws_of_keys.derive_seed`. With `training.noise: keyed`, a
row's numbers depend on that seed and on its position in the global batch alone, and a rank draws those of its own rows.
With `global`, every rank draws those of all rows and keeps its own, as in runs that are older than the setting.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.training.config import Noise
from pipeline.training.distributed import DistributedContext
from vdsm.device import upload
from vdsm.row_streams import Generator, RowStreams


class Draw(NamedTuple):
    """A generator, and what to do with what it gives."""

    generator: Generator
    rows: int
    """Rows to draw."""
    own: slice
    """This rank's rows of what is drawn."""
    device: torch.device

    def local(self, values: Tensor) -> Tensor:
        """Return this rank's rows of what was drawn, on its device."""
        return upload(values[self.own], self.device)


def draw(noise: Noise, seed: int, batch: int, world: DistributedContext, together: int = 1) -> Draw:
    """Return the generator of one purpose for a global batch of `batch` rows, of which so many stay together."""
    own = world.rows(batch, together)
    if noise == "global":
        return Draw(torch.Generator().manual_seed(seed), batch, own, world.device)
    rows = range(batch)[own]
    return Draw(RowStreams(seed, rows), len(rows), slice(None), world.device)

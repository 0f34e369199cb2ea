"""The random numbers of a step: the same at any number of workers, of which each draws those of its own samples."""

import hashlib
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.training.augmentation import draw_augmentation
from pipeline.training.distributed import DistributedContext
from pipeline.training.draws import Noise, draw
from pipeline.training.samples_config import AugmentationConfig
from vdsm.frames import draw_frames
from vdsm.row_streams import RowStreams
from vdsm.sequence import SequenceModel

BATCH, LENGTH = 7, 5
KNOWN = [[1.091689109802246, 0.45582669973373413], [1.0854910612106323, -3.1241283416748047]]
"""Of seed 1, rows 0 and 5: another library must not change the numbers of a run that is resumed."""
KNOWN_SHA256 = "c54bda34b0a1b6263804878e295f25c0d2f3a63b03d3bbbac1414d13a65e6990"
"""Of the numbers of a step, seed 2^63 + 7, rows 80 to 99."""


class Sizes:
    """What `draw_noise` of stage 2 needs of its model."""

    class config:
        num_experts, dynamics_size, pose_size = 4, 3, 2


def drawn(noise: Noise, seed: int, world: DistributedContext) -> list[torch.Tensor]:
    """Return everything that is drawn for a rank's samples: noise, frames to decode, and augmentation."""
    one = draw(noise, seed, BATCH, world)
    sizes: Any = Sizes()
    found = [*SequenceModel.draw_noise(sizes, one.rows, LENGTH, one.generator)]
    found.append(draw_frames(one.rows, LENGTH, 2, one.generator))
    found += draw_augmentation(AugmentationConfig(colour=0.5, crop=0.3, flip=0.5), one.rows, one.generator)
    return [one.local(values) for values in found]


@pytest.mark.parametrize("noise", ["keyed", "global"])
@pytest.mark.parametrize("size", [2, 3, 7])
def test_the_ranks_together_draw_what_one_rank_draws(noise: Noise, size: int) -> None:
    alone = drawn(noise, 11, DistributedContext())
    parts = [drawn(noise, 11, DistributedContext(rank=rank, size=size)) for rank in range(size)]
    for together, whole in zip(zip(*parts, strict=True), alone, strict=True):
        assert torch.equal(torch.cat(together), whole)
    other = drawn(noise, 12, DistributedContext())
    assert not any(torch.equal(one, two) for one, two in zip(alone[:4], other[:4], strict=True))


@pytest.mark.parametrize("together", [1, 2])
def test_a_rank_draws_no_numbers_of_other_ranks_with_keyed_noise(together: int) -> None:
    for rank in range(3):
        world, batch = DistributedContext(rank=rank, size=3), 2 * BATCH
        one = draw("keyed", 0, batch, world, together)
        assert one.rows == len(range(batch)[world.rows(batch, together)]) < batch
        everything = draw("global", 0, batch, world, together)
        assert everything.rows == batch
        numbers = torch.arange(batch)
        assert torch.equal(everything.local(numbers), numbers[world.rows(batch, together)])


def test_global_noise_is_that_of_earlier_versions() -> None:
    generator = torch.Generator().manual_seed(5)
    expected = [torch.randn(BATCH, *shape, generator=generator) for shape in ((4,), (3,), (LENGTH, 2), (4,))]
    order = torch.rand(BATCH, LENGTH, generator=generator).argsort(dim=1)
    expected.append(order[:, :2].sort(dim=1).values)
    found = drawn("global", 5, DistributedContext(rank=1, size=2))
    rows = DistributedContext(rank=1, size=2).rows(BATCH)
    assert all(torch.equal(one, two[rows]) for one, two in zip(found[:5], expected, strict=True))


def test_keyed_numbers_are_known_normal_and_independent() -> None:
    known = RowStreams(1, [0, 5]).normal(2)
    assert known.tolist() == KNOWN
    streams, digest = RowStreams(2**63 + 7, range(80, 100)), hashlib.sha256()
    for values in (streams.normal(40), streams.normal(8, 30), streams.uniform(8), streams.normal()):
        digest.update(values.numpy().tobytes())
    assert digest.hexdigest() == KNOWN_SHA256
    values = RowStreams(3, range(400)).normal(500).numpy()
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1) < 0.01
    between = np.corrcoef(values[:40])[np.triu_indices(40, 1)]
    assert np.abs(between).max() < 5 / np.sqrt(500)
    later = RowStreams(4, range(400)).normal(500).numpy()
    assert abs((values * later).mean()) < 0.01
    uniform = RowStreams(3, range(50)).uniform(200)
    assert 0 <= float(uniform.min()) < 0.001 < 0.999 < float(uniform.max()) < 1

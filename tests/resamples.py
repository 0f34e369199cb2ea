"""Less of what takes most of the time of an evaluation of a tiny model, where no test states anything of it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from vdsm.evaluation import frechet, probes, reconstruction


@contextmanager
def fewer_resamples() -> Iterator[None]:
    """Take the intervals of Frechet distances from a fortieth of the resamples; the distances are the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frechet, "RESAMPLES", frechet.RESAMPLES // 40)
        yield


@contextmanager
def rough_scores() -> Iterator[None]:
    """Fit probes with a twentieth of the steps, which learn little, and compare the reconstructions of a few clips."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probes, "STEPS", probes.STEPS // 20)
        patch.setattr(probes, "PASSES", 1)
        patch.setattr(reconstruction, "CLIPS", 8)
        patch.setattr(probes, "ITERATIONS", probes.ITERATIONS // 20)
        yield

"""Fewer bootstrap resamples, which take most of the time of an evaluation of a tiny model."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from vdsm.evaluation import frechet


@contextmanager
def fewer_resamples() -> Iterator[None]:
    """Take the intervals of Frechet distances from a tenth of the resamples; the distances are the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frechet, "RESAMPLES", frechet.RESAMPLES // 10)
        yield

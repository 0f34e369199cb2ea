"""How a measurement reports its progress to whatever displays it."""

from collections.abc import Iterator
from typing import Protocol


class Progress(Protocol):
    """Receives the phases of a long measurement, one after the other."""

    def start(self, phase: str, total: float | None = None, *, unit: str = "", done: float = 0) -> None:
        """Begin the next phase, of `total` units (None where the number is unknown); `done` were finished earlier."""

    def advance(self, units: float = 1) -> None:
        """Count finished units of the phase."""


class NoProgress:
    """A Progress that displays nothing."""

    def start(self, phase: str, total: float | None = None, *, unit: str = "", done: float = 0) -> None:
        """Do nothing."""

    def advance(self, units: float = 1) -> None:
        """Do nothing."""


NO_PROGRESS = NoProgress()
"""For callers that display no progress."""


def in_batches(count: int, size: int, progress: Progress) -> Iterator[slice]:
    """Yield slices of `size` that divide `count` clips, and advance the current phase after each by its length."""
    for start in range(0, count, size):
        batch = slice(start, min(start + size, count))
        yield batch
        progress.advance(batch.stop - batch.start)

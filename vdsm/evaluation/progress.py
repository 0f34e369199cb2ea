"""How a measurement reports its progress to whatever displays it."""

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

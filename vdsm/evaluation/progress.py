"""How a measurement reports its progress to whoever shows it."""

from typing import Protocol


class Progress(Protocol):
    """Receives the phases of a long measurement, one after the other."""

    def start(self, phase: str, total: float | None = None, *, unit: str = "") -> None:
        """Begin the next phase, of `total` units; none where the number is not known."""

    def advance(self, units: float = 1) -> None:
        """Count finished units of the phase."""


class NoProgress:
    """A Progress that shows nothing."""

    def start(self, phase: str, total: float | None = None, *, unit: str = "") -> None:
        """Ignore it."""

    def advance(self, units: float = 1) -> None:
        """Ignore it."""


NO_PROGRESS = NoProgress()
"""For callers that show no progress."""

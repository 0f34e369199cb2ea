"""A progress display that records the phases instead of showing them."""


class CountingProgress:
    """Records the started phases and the finished units of each."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.totals: list[float | None] = []
        self.done: list[float] = []

    def start(self, phase: str, total: float | None = None, *, unit: str = "", done: float = 0) -> None:
        """Record a phase."""
        self.phases.append(phase)
        self.totals.append(total)
        self.done.append(done)

    def advance(self, units: float = 1) -> None:
        """Add finished units to the last phase."""
        self.done[-1] += units

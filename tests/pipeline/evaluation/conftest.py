"""Every evaluation in these tests must start as many phases of progress as it announces."""

from collections.abc import Iterator
from types import TracebackType

import pytest

from cluster.cli.progress import ProgressDisplay
from pipeline.evaluation import execute


class CountingDisplay(ProgressDisplay):
    """A display that checks, at the end of a successful command, the number of phases that it showed."""

    def __init__(self, phases: int) -> None:
        super().__init__(phases)
        self.announced, self.started = phases, list[str]()

    def start(self, phase: str, total: float | None = None, *, unit: str = "", done: float = 0) -> None:
        self.started.append(phase)
        super().start(phase, total, unit=unit, done=done)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if kind is None:
            assert len(self.started) == self.announced, self.started


@pytest.fixture(scope="module", autouse=True)
def _counting_display() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execute, "ProgressDisplay", CountingDisplay)
        yield

"""Progress of work that is done step by step: a bar in a terminal, elsewhere a log line now and then."""

import logging
import sys
import time
from types import TracebackType
from typing import Any

log = logging.getLogger(__name__)

EVERY_S = 10.0
"""Seconds between log lines where there is no terminal."""


class ProgressReport:
    """Called with (what is being done, units done, units in all); shows the time left of it."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._tasks: dict[str, Any] = {}
        self._began: dict[str, float] = {}
        self._said = time.monotonic()

    def __enter__(self) -> "ProgressReport":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Say that `done` of `total` units of `what` are done."""
        now = time.monotonic()
        began = self._began.setdefault(what, now)
        if self._bar is not None:
            if what not in self._tasks:
                self._tasks[what] = self._bar.add_task(what, total=total)
            self._bar.update(self._tasks[what], completed=done, total=total)
        elif now - self._said >= EVERY_S and done < total:
            self._said = now
            left = (now - began) / max(done, 1) * (total - done)
            log.info("%s: %d of %d, %.0f s left", what, done, total, left)

"""Progress of a long command: which phase of how many, how far, how fast, and the time left in that phase.

A bar in a terminal; elsewhere a log line per interval, so that a command is never silent for longer than that.
"""

import logging
import shutil
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

log = logging.getLogger(__name__)

INTERVAL_S = 10.0
"""Seconds between log lines where there is no terminal."""
LOG_PREFIX = len("12:34:56 I ")
"""Characters that the log puts before a message."""
FALLBACK_COLUMNS = 120
"""Width of a log line where no terminal and no COLUMNS gives one."""


def format_duration(seconds: float) -> str:
    """Return a duration such as `42 s`, `3 min 20 s` or `5 h 07 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def fit_log_line(text: str) -> str:
    """Return `text`, cut off where its log line would be wider than the terminal."""
    width = shutil.get_terminal_size((FALLBACK_COLUMNS, 24)).columns - LOG_PREFIX
    return text if len(text) <= width else f"{text[: max(1, width - 3)]}..."


class ProgressDisplay:
    """The progress of one command, a context manager. Each phase has its own clock, rate and estimate.

    Args:
        phases: number of phases, where it is known at the start; see `expect`.
        interval_s: seconds between log lines where stderr is no terminal.
        clock: seconds of a monotonic clock.
    """

    def __init__(
        self,
        phases: int | None = None,
        *,
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._phases, self._interval_s, self._clock = phases, interval_s, clock
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._number, self._phase, self._unit, self._note = 0, "", "", ""
        self._done: float = 0
        self._first: float = 0
        self._total: float | None = None
        self._began = self._logged = clock()
        self._spoke = False
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> "ProgressDisplay":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[state]}", markup=False),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task("", total=None, state="")
            self._bar.start()
        threading.Thread(target=self._keep_talking, daemon=True, name="progress").start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        with self._lock:
            if kind is None:
                self._finish_phase()
            if self._bar is not None:
                self._bar.stop()
                self._bar = None

    def expect(self, phases: int) -> None:
        """Set the number of phases, counted from the first one."""
        with self._lock:
            self._phases = phases

    def start(self, phase: str, total: float | None = None, *, unit: str = "", done: float = 0) -> None:
        """Begin the next phase.

        Args:
            phase: what is being done, such as `encoding test clips`.
            total: its number of units; none where it is not known.
            unit: their name in the plural, for the rate.
            done: units that were finished before this process began, which are left out of the rate.
        """
        with self._lock:
            self._finish_phase()
            self._number += 1
            self._phase, self._total, self._unit, self._note = phase, total, unit, ""
            self._done = self._first = done
            self._began, self._spoke = self._clock(), False
            self._show()

    def advance(self, units: float = 1) -> None:
        """Count finished units of the phase."""
        with self._lock:
            self.update(self._done + units)

    def update(self, done: float, *, note: str | None = None) -> None:
        """Set the number of finished units of the phase, and a note that is shown after it."""
        with self._lock:
            self._done = done
            if note is not None:
                self._note = note
            self._show()

    def line(self) -> str:
        """Return the state: `phase 2 of 5: encoding test clips: 240/1,000 (24%), 81 clips/s, 9 s left`."""
        return f"{self._title()}: {self._state()}"

    def _title(self) -> str:
        of = f" of {max(self._phases, self._number)}" if self._phases else ""
        return self._phase if self._phases == 1 and self._number <= 1 else f"phase {self._number}{of}: {self._phase}"

    def _state(self) -> str:
        seconds = self._clock() - self._began
        parts = []
        if self._total is not None:
            share = f" ({self._done / self._total:.0%})" if self._total else ""
            parts.append(f"{self._done:,.0f}/{self._total:,.0f}{share}")
        elif self._done:
            parts.append(f"{self._done:,.0f} {self._unit}".rstrip())
        made = self._done - self._first
        if made > 0 and seconds > 0:
            rate = made / seconds
            if self._unit:
                parts.append(f"{rate:,.0f} {self._unit}/s" if rate >= 10 else f"{rate:.2g} {self._unit}/s")
            if self._total is not None and self._done < self._total:
                parts.append(f"{format_duration((self._total - self._done) / rate)} left")
        if made <= 0 or self._total is None:
            parts.append(f"{format_duration(seconds)} elapsed")
        return ", ".join(parts + ([self._note] if self._note else []))

    def _show(self) -> None:
        if self._bar is not None:
            self._bar.update(
                self._task, description=self._title(), total=self._total, completed=self._done, state=self._state()
            )
        elif self._clock() - self._logged >= self._interval_s:
            self._say(self.line())

    def _say(self, text: str) -> None:
        self._logged, self._spoke = self._clock(), True
        log.info("%s", fit_log_line(text))

    def _finish_phase(self) -> None:
        """Log the end of a phase that was long enough to have been logged."""
        if self._phase and self._spoke and self._bar is None:
            self._say(f"{self._title()}: done in {format_duration(self._clock() - self._began)}")

    def _keep_talking(self) -> None:
        while not self._closed.wait(min(1.0, self._interval_s)):
            with self._lock:
                if self._phase and not self._closed.is_set():
                    self._show()

"""Progress of a long command: current phase and number of phases, units done, rate, time left in the phase.

In a terminal this is a live bar, elsewhere one log line per interval, so that a command is never silent for longer.
"""

import contextlib
import logging
import math
import shutil
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

log = logging.getLogger(__name__)

INTERVAL_S = 10.0
"""Seconds between log lines if stderr is not a terminal."""
LOG_PREFIX = len("12:34:56 I ")
"""Columns that the log format puts before a message."""
FALLBACK_COLUMNS = 120
"""Width of a log line if neither COLUMNS nor a terminal defines one."""
_BAR_COLUMNS = 24
_SMALLEST_BAR = 8


def format_duration(seconds: float) -> str:
    """Return a duration such as `42 s`, `3 min 20 s` or `5 h 07 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def fit_log_line(text: str) -> str:
    """Return `text` in one line, truncated to what fits into the terminal after the prefix of the log."""
    return _truncated(text, shutil.get_terminal_size((FALLBACK_COLUMNS, 24)).columns - LOG_PREFIX)


def _truncated(text: str, columns: int) -> str:
    text = " ".join(text.split())
    if cell_len(text) <= columns:
        return text
    return f"{set_cell_size(text, columns - 3)}..." if columns > 3 else set_cell_size(text, max(1, columns))


class ProgressDisplay:
    """The progress of one command, a context manager. Each phase has its own clock, rate and estimate.

    All methods can be called from any thread.

    Args:
        phases: number of phases, if it is known at the start; see `expect`.
        interval_s: seconds between log lines if stderr is not a terminal.
        clock: returns the seconds of a monotonic clock.
    """

    def __init__(
        self,
        phases: int | None = None,
        *,
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._phases, self._interval_s, self._clock = phases, interval_s, clock
        # Held only to read or change the fields below, never while printing: rich renders in a thread of its own, with
        # a lock that a log record needs as well. Reentrant, since a signal handler can log at any time.
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._number, self._phase, self._unit, self._note = 0, "", "", ""
        self._done: float = 0
        self._resumed_at: float = 0
        self._total: float | None = None
        self._started = self._logged = clock()
        self._live: Any = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "ProgressDisplay":
        self._live = _make_live(self)
        if self._live is not None:
            self._live.start()
        else:
            self._thread = threading.Thread(target=self._log_regularly, daemon=True, name="progress")
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            summary = self._summary() if kind is None else None
            self._closed.set()
        if self._thread is not None:
            self._thread.join()
        if self._live is not None:
            with contextlib.suppress(OSError):  # the terminal has closed
                self._live.stop()
        _log(summary)

    def expect(self, phases: int) -> None:
        """Set the number of phases, counted from the first one."""
        with self._lock:
            self._phases = phases

    def start(
        self, phase: str, total: float | None = None, *, unit: str = "", done: float = 0, number: int | None = None
    ) -> None:
        """Begin the next phase, or restart the clock of the current one.

        Args:
            phase: what is being done, such as `encoding test clips`.
            total: number of units, if known.
            unit: name of the units in the plural, for the rate.
            done: units finished by an earlier process, which do not count towards the rate.
            number: number of the phase if it is not the next one, for work that is repeated after a failure.
        """
        with self._lock:
            summary = self._summary() if number is None or number != self._number else None
            self._number = self._number + 1 if number is None else number
            self._phase, self._total, self._unit, self._note = phase, total, unit, ""
            self._done = self._resumed_at = done
            self._started = self._clock()
        _log(summary)
        self._log_if_due()

    def advance(self, units: float = 1) -> None:
        """Add finished units to the current phase."""
        with self._lock:
            self._done += units
        self._log_if_due()

    def update(self, done: float, *, note: str | None = None) -> None:
        """Set the number of finished units of the current phase, and a note shown after it."""
        with self._lock:
            self._done = done
            if note is not None:
                self._note = note
        self._log_if_due()

    def line(self) -> str:
        """Return the state, such as `phase 2 of 5: encoding test clips: 240/1,000 (24%), 81 clips/s, 9 s left`."""
        with self._lock:
            return f"{self._title()}: {self._state()}"

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        with self._lock:
            title, state, done, total = self._title(), self._state(), self._done, self._total
            phase, now, note = self._phase, self._clock(), self._note
        if not phase:
            return
        columns = options.max_width
        # A long note is truncated rather than the bar left out.
        needed = cell_len(state) - (cell_len(note) + 2 if note else 0)
        bar = min(_BAR_COLUMNS, columns - cell_len(title) - needed - 2)
        if bar < _SMALLEST_BAR:
            # Text, not a string: names may contain what rich would read as markup.
            yield Text(_truncated(f"{title}: {state}", columns), no_wrap=True, end="")
            return
        row = Table.grid(padding=(0, 1))
        row.add_row(
            Text(title, no_wrap=True),
            ProgressBar(total=total, completed=done, width=bar, pulse=total is None, animation_time=now),
            Text(_truncated(state, columns - cell_len(title) - bar - 2), no_wrap=True),
        )
        yield row

    def _title(self) -> str:
        if self._phases == 1 and self._number <= 1:
            return self._phase
        of = f" of {max(self._phases, self._number)}" if self._phases else ""
        return f"phase {self._number}{of}: {self._phase}"

    def _state(self) -> str:
        seconds, gained = self._clock() - self._started, self._done - self._resumed_at
        rate = gained / seconds if gained > 0 and seconds > 0 else 0.0
        parts = []
        if self._total is not None:
            share = f" ({min(100, math.floor(100 * self._done / self._total))}%)" if self._total else ""
            parts.append(f"{self._done:,.0f}/{self._total:,.0f}{share}")
        elif self._done:
            parts.append(f"{self._done:,.0f} {self._unit}".rstrip())
        if rate and self._unit:
            parts.append(f"{rate:,.0f} {self._unit}/s" if rate >= 10 else f"{rate:.2g} {self._unit}/s")
        if rate and self._total is not None:
            if self._done < self._total:
                parts.append(f"{format_duration(max(1.0, (self._total - self._done) / rate))} left")
        else:
            parts.append(f"{format_duration(seconds)} elapsed")
        return ", ".join([*parts, self._note] if self._note else parts)

    def _summary(self) -> str | None:
        """Return the last line of a phase; None if it was shorter than the interval. The caller must hold the lock."""
        seconds = self._clock() - self._started
        if not self._phase or seconds < self._interval_s:
            return None
        self._logged = self._clock()
        return f"{self._title()}: done in {format_duration(seconds)}"

    def _log_if_due(self) -> None:
        with self._lock:
            if self._live is not None or not self._phase or self._closed.is_set():
                return
            if self._clock() - self._logged < self._interval_s:
                return
            self._logged = self._clock()
            text = f"{self._title()}: {self._state()}"
        _log(text)

    def _log_regularly(self) -> None:
        while not self._closed.wait(min(1.0, self._interval_s)):
            self._log_if_due()


def _log(text: str | None) -> None:
    if text is not None:
        log.info("%s", fit_log_line(text))


def _make_live(display: ProgressDisplay) -> Any:
    """Return rich's live display of `display`, or None if stderr is not a terminal that supports it."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    if console.is_dumb_terminal:
        return None
    # Other writes to stderr are printed above the bar. Standard output is not redirected if it is piped.
    return Live(display, console=console, transient=True, redirect_stdout=sys.stdout.isatty())

"""How far the sharding is, how fast, and how long it will take."""

import logging
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

log = logging.getLogger(__name__)

LOG_INTERVAL_S = 10.0
"""Between log lines where stderr is no terminal."""


class Progress:
    """A moving line on a terminal, a log line now and then elsewhere.

    Args:
        shards: how many will be written.
        total_bytes: their size together, as estimated.
    """

    def __init__(self, *, shards: int, total_bytes: int) -> None:
        self._shards, self._total = shards, max(1, total_bytes)
        self._done = self._clips = self._bytes = self._estimated = self._rejects = 0
        self._begin = self._logged = time.monotonic()
        console = Console(stderr=True)
        self._live = Live(console=console, refresh_per_second=4, transient=True) if sys.stderr.isatty() else None

    def __enter__(self) -> "Progress":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _value: object, _trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()
        if kind is None:
            log.info("%s", self.line())

    def advance(self, *, clips: int, size: int, estimated: int, rejects: int) -> None:
        """Count one shard of `clips` clips and `size` bytes, of which `estimated` were expected, with bad inputs."""
        self._done += 1
        self._clips += clips
        self._bytes += size
        self._estimated += estimated
        self._rejects += rejects

    def refresh(self) -> None:
        """Show the present state."""
        now = time.monotonic()
        if self._live:
            row = Table.grid(padding=(0, 1))
            row.add_row(ProgressBar(total=self._total, completed=self._estimated, width=24), self.line())
            self._live.update(row)
        elif now - self._logged >= LOG_INTERVAL_S:
            self._logged = now
            log.info("%s", self.line())

    def line(self) -> str:
        """State, rates and time left: `3/37 shards, 990 clips, 2 rejects, 812 clips/s, 81.6 MB/s, 0:13 left`."""
        seconds = max(1e-9, time.monotonic() - self._begin)
        text = (
            f"{self._done}/{self._shards} shards, {self._clips:,} clips, {self._rejects:,} rejects, "
            f"{self._clips / seconds:,.0f} clips/s, {self._bytes / 1e6 / seconds:,.1f} MB/s"
        )
        if self._done == self._shards:
            return f"{text}, {clock(seconds)} in all"
        if not self._estimated:
            return text
        # By the estimate of what is done and what is left: the sizes themselves are known of what is done only.
        return f"{text}, {clock(max(0.0, (self._total - self._estimated) / (self._estimated / seconds)))} left"


def clock(seconds: float) -> str:
    """`0:13`, `12:05` or `3:00:00`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

"""What the shards written so far hold, and how fast they were written."""

import time
from collections.abc import Callable

from preprocessing.dataset.index import ShardSummary


class Throughput:
    """Counts and rates of the shards that this run has written.

    Args:
        clock: returns the seconds of a monotonic clock.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._began = clock, clock()
        self._clips = self._rejects = self._bytes = 0

    def add(self, shard: ShardSummary) -> None:
        """Count a shard."""
        self._clips += shard.index["clips"]
        self._rejects += len(shard.index["rejects"])
        self._bytes += shard.index["size_bytes"]

    def line(self) -> str:
        """Return `990 clips, 2 rejects, 812 clips/s, 81.6 MB/s`."""
        seconds = max(1e-9, self._clock() - self._began)
        return (
            f"{self._clips:,} clips, {self._rejects:,} rejects, {self._clips / seconds:,.0f} clips/s, "
            f"{self._bytes / 1e6 / seconds:,.1f} MB/s"
        )

"""The note next to the progress bar: clips, rejects and rates of the shards written by this run."""

from types import SimpleNamespace
from typing import Any

from preprocessing.sharding.throughput import Throughput


def summary(clips: int, rejects: int, size_bytes: int) -> Any:
    return SimpleNamespace(index={"clips": clips, "rejects": [{}] * rejects, "size_bytes": size_bytes})


def test_it_counts_and_divides_by_the_time_since_the_start() -> None:
    now = [100.0]
    throughput = Throughput(clock=lambda: now[0])
    throughput.add(summary(clips=1500, rejects=2, size_bytes=40_000_000))
    now[0] = 102.0
    throughput.add(summary(clips=500, rejects=0, size_bytes=10_000_000))
    assert throughput.line() == "2,000 clips, 2 rejects, 1,000 clips/s, 25.0 MB/s"

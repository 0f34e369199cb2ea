"""Prefetching in threads: the next batches, and the shards of the steps after them."""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.training.batches import Batch, Clips, read_windows
from pipeline.training.order import Windows

DEPTH = 4
"""Number of batches to read ahead."""


class StalledReaderError(RuntimeError):
    """The reader delivered nothing for too long."""


class PrefetchedBatches:
    """An iterable over batches that a thread reads while the model computes. A context manager, or call `close`.

    An error of the reader is raised in place of its batch; StalledReaderError is raised if no batch arrives within
    `stall_s` seconds.

    Args:
        clips: the dataset.
        windows: the samples of each batch.
        window: frames of one window.
        pin: whether to keep batches in pinned memory, for the copy to a GPU.
        stall_s: seconds after which a reader has stalled.
        on_batch: called before each batch is handed out.
    """

    def __init__(
        self,
        clips: Clips,
        windows: Iterable[Windows],
        window: int,
        *,
        pin: bool = False,
        stall_s: float = 600.0,
        on_batch: Callable[[], None] = lambda: None,
    ) -> None:
        self.waited_s = 0.0
        """Total time, in seconds, that the consumer has waited for data."""
        self._clips, self._stall_s, self._on_batch = clips, stall_s, on_batch
        self._reading: Windows | None = None
        self._ready: queue.Queue[Batch | BaseException | None] = queue.Queue(maxsize=DEPTH)
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=self._fill, args=(clips, windows, window, pin), name="prefetch", daemon=True
        )
        self._thread.start()

    def _fill(self, clips: Clips, batches: Iterable[Windows], window: int, pin: bool) -> None:
        try:
            for windows in batches:
                self._reading = windows
                frames = read_windows(clips, windows, window)
                if not self._put(Batch(windows, frames.pin_memory() if pin else frames)):
                    return
            self._put(None)
        except BaseException as error:  # handed to the consumer, which raises it
            self._put(error)

    def _put(self, item: Batch | BaseException | None) -> bool:
        while not self._closed.is_set():
            try:
                self._ready.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self) -> Iterator[Batch]:
        while True:
            began = time.perf_counter()
            try:
                item = self._ready.get(timeout=self._stall_s)
            except queue.Empty:
                raise StalledReaderError(self._stall_message()) from None
            self.waited_s += time.perf_counter() - began
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            self._on_batch()
            yield item

    def _stall_message(self) -> str:
        clips = [] if self._reading is None else [self._clips.keys[clip] for clip in self._reading.clips]
        return (
            f"reading stalled: no batch within {self._stall_s:g} s (training.stall_timeout_s) while reading clips "
            f"{', '.join(clips) or 'none'}; check the storage of the dataset"
        )

    def close(self) -> None:
        """Stop the thread; one that hangs in a read is left to end with the process."""
        self._closed.set()
        self._thread.join(timeout=min(10.0, self._stall_s))

    def __enter__(self) -> "PrefetchedBatches":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ShardReadAhead:
    """Downloads the shards of coming steps to this machine in a thread, about a block before they are needed.

    It walks `steps` and prepares each new shard, until `shards` of them are ahead of the reader's step. It stops at a
    shard that cannot be downloaded: the reader that needs that shard reports why.

    Args:
        clips: the dataset.
        at: returns the samples that this rank reads in a step. What other ranks read is not fetched for them: it would
            take room until this rank opens it, which it never does.
        steps: the steps to walk.
        shards: most shards ahead. With two blocks, the next one is fetched while the current one is read.
    """

    def __init__(self, clips: Clips, at: Callable[[int], Windows], steps: Sequence[int], shards: int) -> None:
        self._clips, self._at, self._steps, self._shards = clips, at, steps, shards
        numbers = clips.clip_shards
        # A list has to become an array; what computes the shards of some clips stays as small as it is.
        self._shard_of: Any = np.asarray(numbers, dtype=np.int64) if isinstance(numbers, list | tuple) else numbers
        self._step = steps[0] if len(steps) else 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._walk, name="read ahead", daemon=True)
        self._thread.start()

    def reached(self, step: int) -> None:
        """Note that the training is at `step`."""
        self._step = step

    def _walk(self) -> None:
        last_use: dict[int, int] = {}
        for step in self._steps:
            windows = self._at(step)
            clips = [windows.clips] if windows.partners is None else [windows.clips, windows.partners]
            for shard in np.unique(self._shard_of[np.concatenate(clips)]).tolist():
                if shard not in last_use and not self._prepare(shard, last_use):
                    return
                last_use[shard] = step
            last_use = {shard: used for shard, used in last_use.items() if used >= self._step}
            if self._closed.is_set():
                return

    def _prepare(self, shard: int, last_use: dict[int, int]) -> bool:
        while not self._closed.is_set():
            ahead = sum(used > self._step for used in last_use.values())
            try:
                if ahead < self._shards and self._clips.prepare(shard):
                    return True
            except Exception:
                return False
            self._closed.wait(0.2)
        return False

    def __enter__(self) -> "ShardReadAhead":
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join(timeout=1)

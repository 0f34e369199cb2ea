"""Batches as tensors, read ahead of need by threads.

Letters: B samples, T frames of a sample, H W C image.
"""

import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.training.order import ClipTable, GlobalOrder, Windows
from vdsm.config import ModelConfig


class Clips(Protocol):
    """What the training asks of a dataset (preprocessing.dataset.reader.ClipDataset is one)."""

    keys: list[str]
    identities: list[str]

    @property
    def clip_frames(self) -> Sequence[int] | NDArray[np.int64]:
        """Length of each clip, in frames."""

    @property
    def clip_shards(self) -> Sequence[int] | NDArray[np.int64]:
        """Number of the shard that holds each clip."""

    def frames(self, index: int) -> NDArray[np.uint8]:
        """Clip `index` as uint8 [T, H, W, C]."""

    def prepare(self, shard: int) -> bool:
        """Bring a shard to this machine ahead of need. False where there is no room for it now."""


def catalogue(clips: Clips) -> ClipTable:
    """The dataset as the order sees it."""
    frames, shards = (np.asarray(column, dtype=np.int64) for column in (clips.clip_frames, clips.clip_shards))
    return ClipTable(clips.keys, clips.identities, frames, shards)


def check_frames(clips: Clips, model: ModelConfig) -> None:
    """Raises ValueError where the dataset is empty or its frames are not those the model is made for."""
    if not clips.keys:
        raise ValueError("the training split of the dataset has no clips; shard a source that has some")
    height, width, channels = clips.frames(0).shape[1:]
    if (height, width) != (model.frame_size, model.frame_size):
        raise ValueError(
            f"the dataset's frames are {height}x{width} pixels and model.frame_size is {model.frame_size}; "
            "set model.frame_size (with as many decoder_channels as it needs) or shard at that size"
        )
    if channels != model.channels:
        raise ValueError(
            f"the dataset's frames have {channels} channels and model.channels is {model.channels}; "
            f"set model.channels to {channels}"
        )


def read(clips: Clips, windows: Windows, window: int) -> Tensor:
    """The samples of `windows` as uint8 [B, T, H, W, C]; T is `window`, or twice that when paired."""
    pairs = [(windows.clips, windows.starts)]
    if windows.partners is not None and windows.partner_starts is not None:
        pairs.append((windows.partners, windows.partner_starts))
    batch: NDArray[np.uint8] | None = None
    for part, (indices, starts) in enumerate(pairs):
        for row, (clip, start) in enumerate(zip(indices.tolist(), starts.tolist(), strict=True)):
            frames = _cut(clips, clip, start, window)
            if batch is None:
                batch = np.empty((len(indices), len(pairs) * window, *frames.shape[1:]), dtype=np.uint8)
            # By numpy: torch would use threads for so small a copy.
            batch[row, part * window : (part + 1) * window] = frames
    if batch is None:
        raise ValueError("a batch of no clips")
    return torch.from_numpy(batch)


def _cut(clips: Clips, clip: int, start: int, window: int) -> NDArray[np.uint8]:
    frames = clips.frames(clip)[start : start + window]
    if len(frames) != window:
        raise ValueError(
            f"clip {clips.keys[clip]} ends before frame {start + window}; verify the dataset and shard it again"
        )
    return frames


def to_model(frames: Tensor, device: torch.device) -> Tensor:
    """uint8 [B, T, H, W, C] -> float32 [B, T, C, H, W] in [0, 1] on `device`; the bytes travel, not the floats."""
    moved = frames.to(device, non_blocking=True)
    return moved.permute(0, 1, 4, 2, 3).to(torch.float32, memory_format=torch.contiguous_format).div_(255)


class StalledReaderError(RuntimeError):
    """The reader brought nothing for too long."""


class Prefetched:
    """Reads batches in a thread while the model computes: iterate over pairs of (windows, uint8 [B, T, H, W, C]).

    `waited_s` is the time, in seconds, that the consumer has waited for data. An error of the reader is raised where
    the batch would have come, and StalledReaderError where none came for `stall_s` seconds. Close it, or use it as a context
    manager.
    """

    def __init__(
        self,
        clips: Clips,
        batches: Iterable[Windows],
        window: int,
        *,
        depth: int = 4,
        pin: bool = False,
        stall_s: float = 600.0,
    ) -> None:
        self.waited_s = 0.0
        self._clips, self._stall_s = clips, stall_s
        self._reading: Windows | None = None
        self._ready: queue.Queue[tuple[Windows, Tensor] | BaseException | None] = queue.Queue(maxsize=depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=self._fill, args=(clips, batches, window, pin), name="prefetch", daemon=True
        )
        self._thread.start()

    def _fill(self, clips: Clips, batches: Iterable[Windows], window: int, pin: bool) -> None:
        try:
            for windows in batches:
                self._reading = windows
                frames = read(clips, windows, window)
                if not self._put((windows, frames.pin_memory() if pin else frames)):
                    return
            self._put(None)
        except BaseException as error:  # handed to the consumer, which raises it
            self._put(error)

    def _put(self, item: tuple[Windows, Tensor] | BaseException | None) -> bool:
        while not self._closed.is_set():
            try:
                self._ready.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self) -> Iterator[tuple[Windows, Tensor]]:
        while True:
            began = time.perf_counter()
            try:
                item = self._ready.get(timeout=self._stall_s)
            except queue.Empty:
                raise StalledReaderError(self._stalled()) from None
            self.waited_s += time.perf_counter() - began
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def _stalled(self) -> str:
        found = [] if self._reading is None else [self._clips.keys[clip] for clip in self._reading.clips]
        return (
            f"reading stalled: nothing came for {self._stall_s:g} s (training.stall_timeout_s) while reading clips "
            f"{', '.join(found) or 'none'}; check the storage of the dataset"
        )

    def close(self) -> None:
        """Stops the thread; one that hangs in a read is left to end with the process."""
        self._closed.set()
        self._thread.join(timeout=min(10.0, self._stall_s))

    def __enter__(self) -> "Prefetched":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ReadAhead:
    """Brings the shards of coming steps to this machine in a thread, about a block before they are needed.

    It walks the order of `steps` and prepares each shard that it meets, until `shards` of them lie ahead of the step
    that was `reached`. Where a shard cannot be had it stops: whoever needs the shard will find out why.
    """

    def __init__(self, clips: Clips, order: GlobalOrder, steps: Sequence[int], shards: int) -> None:
        self._clips, self._order, self._steps, self._shards = clips, order, steps, shards
        self._shard_of = np.asarray(clips.clip_shards, dtype=np.int64)
        self._step = steps[0] if len(steps) else 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._walk, name="read ahead", daemon=True)
        self._thread.start()

    def reached(self, step: int) -> None:
        """The training is at `step`."""
        self._step = step

    def _walk(self) -> None:
        last_use: dict[int, int] = {}
        for step in self._steps:
            windows = self._order.at(step)
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

    def __enter__(self) -> "ReadAhead":
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join(timeout=1)

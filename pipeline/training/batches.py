"""Batches as tensors, read ahead of need by a thread.

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

from pipeline.training.order import Catalogue, Windows
from vdsm.config import ModelConfig


class Clips(Protocol):
    """What the training asks of a dataset (preprocessing.dataset.ClipDataset is one)."""

    keys: list[str]
    identities: list[str]

    @property
    def clip_frames(self) -> Sequence[int] | NDArray[np.int64]:
        """Length of each clip, in frames."""

    def frames(self, index: int) -> NDArray[np.uint8]:
        """Clip `index` as uint8 [T, H, W, C]."""


def catalogue(clips: Clips) -> Catalogue:
    """The dataset as the order sees it."""
    return Catalogue(clips.keys, clips.identities, np.asarray(clips.clip_frames, dtype=np.int64))


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
    sequences = []
    for row, clip in enumerate(windows.clips):
        parts = [_cut(clips, int(clip), int(windows.starts[row]), window)]
        if windows.partners is not None and windows.partner_starts is not None:
            parts.append(_cut(clips, int(windows.partners[row]), int(windows.partner_starts[row]), window))
        sequences.append(np.concatenate(parts))
    return torch.from_numpy(np.stack(sequences))


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


class Prefetched:
    """Reads batches in a thread while the model computes: iterate over pairs of (windows, uint8 [B, T, H, W, C]).

    `waited_s` is the time, in seconds, that the consumer has waited for data. An error of the reader is raised where
    the batch would have come. Close it, or use it as a context manager.
    """

    def __init__(
        self, clips: Clips, batches: Iterable[Windows], window: int, *, depth: int = 4, pin: bool = False
    ) -> None:
        self.waited_s = 0.0
        self._ready: queue.Queue[tuple[Windows, Tensor] | BaseException | None] = queue.Queue(maxsize=depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=self._fill, args=(clips, batches, window, pin), name="prefetch", daemon=True
        )
        self._thread.start()

    def _fill(self, clips: Clips, batches: Iterable[Windows], window: int, pin: bool) -> None:
        try:
            for windows in batches:
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
            item = self._ready.get()
            self.waited_s += time.perf_counter() - began
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """Stops the thread."""
        self._closed.set()
        self._thread.join(timeout=10)

    def __enter__(self) -> "Prefetched":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

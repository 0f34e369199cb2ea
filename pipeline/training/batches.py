"""Batches as tensors.

Letters: B samples, T frames of a sample, H W C image.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.training.order import Windows
from vdsm.config import ModelConfig


class Clips(Protocol):
    """The part of a dataset that the training uses; `preprocessing.dataset.reader.ClipDataset` has it."""

    @property
    def keys(self) -> Sequence[str]:
        """Unique key of each clip."""

    @property
    def identities(self) -> Sequence[str]:
        """Identity of each clip."""

    @property
    def sources(self) -> Sequence[str]:
        """Source of each clip."""

    @property
    def starts_s(self) -> NDArray[np.float64]:
        """Start of each clip in its source, in seconds, [N]."""

    @property
    def clip_frames(self) -> Sequence[int] | NDArray[np.int64]:
        """Length of each clip, in frames."""

    @property
    def clip_shards(self) -> Sequence[int] | NDArray[np.int64]:
        """Number of the shard that holds each clip."""

    def frames(self, index: int) -> NDArray[np.uint8]:
        """Return clip `index` as uint8 [T, H, W, C]."""

    def prepare(self, shard: int) -> bool:
        """Prefetch a shard to this machine. Return False if there is no room for it now."""


class Batch(NamedTuple):
    """The samples of one rank in one step."""

    windows: Windows
    frames: Tensor
    """uint8 [B, T, H, W, C]; T is two windows for paired samples."""


def check_frames(clips: Clips, model: ModelConfig) -> None:
    """Check that the dataset has clips, with frames of the model's size and channels.

    Raises:
        ValueError: there are no clips, or their frames do not fit the model.
    """
    if not clips.keys:
        raise ValueError("the training split of the dataset has no clips; shard a source that has some")
    height, width, channels = clips.frames(0).shape[1:]
    if (height, width) != (model.frame_size, model.frame_size):
        raise ValueError(
            f"the dataset's frames are {height}x{width} pixels and model.frame_size is {model.frame_size}; "
            "set model.frame_size (with the decoder_channels that it requires) or shard at that size"
        )
    if channels != model.channels:
        raise ValueError(
            f"the dataset's frames have {channels} channels and model.channels is {model.channels}; "
            f"set model.channels to {channels}"
        )


def read_windows(clips: Clips, windows: Windows, window: int) -> Tensor:
    """Return the samples of `windows` as uint8 [B, T, H, W, C]; T is `window`, or twice that for paired samples."""
    parts = [(windows.clips, windows.starts)]
    if windows.partners is not None and windows.partner_starts is not None:
        parts.append((windows.partners, windows.partner_starts))
    batch: NDArray[np.uint8] | None = None
    for number, (indices, starts) in enumerate(parts):
        for row, (clip, start) in enumerate(zip(indices.tolist(), starts.tolist(), strict=True)):
            frames = _cut(clips, clip, start, window)
            if batch is None:
                batch = np.empty((len(indices), len(parts) * window, *frames.shape[1:]), dtype=np.uint8)
            # With numpy: torch would start threads for this small copy.
            batch[row, number * window : (number + 1) * window] = frames
    if batch is None:
        raise ValueError("the batch has no clips")
    return torch.from_numpy(batch)


def _cut(clips: Clips, clip: int, start: int, window: int) -> NDArray[np.uint8]:
    frames = clips.frames(clip)[start : start + window]
    if len(frames) != window:
        raise ValueError(
            f"clip {clips.keys[clip]} ends before frame {start + window}; verify the dataset and shard it again"
        )
    return frames


def to_model(frames: Tensor, device: torch.device) -> Tensor:
    """Convert uint8 [B, T, H, W, C] to float32 [B, T, C, H, W] in [0, 1] on `device`, after copying the bytes there."""
    moved = frames.to(device, non_blocking=True)
    return moved.permute(0, 1, 4, 2, 3).to(torch.float32, memory_format=torch.contiguous_format).div_(255)

"""A trained model as a library object: clips in, clips and codes out.

Letters: B clips, T frames of a clip, H W C image; K static code, Z pose, D dynamics code.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vdsm.companions import reader
from vdsm.config import ModelConfig
from vdsm.device import device_of
from vdsm.disentangler import Codes, Disentangler
from vdsm.model_folder import ModelFacts
from vdsm.pixels import to_float, to_pixels

Frames = NDArray[np.uint8]
"""uint8 [T, H, W, C] or [B, T, H, W, C]."""
Clips = NDArray[np.uint8] | Tensor | str | Path | Sequence[str | Path]
"""One clip or several: uint8 [T, H, W, C] or [B, T, H, W, C], as an array or a tensor; or one file name or several.

A file is a video, a folder of images, or an .npy or .npz file, local or in S3. Videos and images are cropped to the
centre square and resized to the model's frames. At least the `clip_frames` of the model are needed; the first ones are
used.
"""
BATCH_CLIPS = 32
"""Clips that the network processes at once."""

T = TypeVar("T", Frames, Codes)


class Model:
    """A trained model. Its methods compute no gradients and draw from no global random numbers.

    A method that takes one clip returns one, without the axis B; several give several. Clips are returned as NumPy
    arrays, codes as tensors on the CPU. `vdsm generate` computes the same frames.
    """

    network: Disentangler
    """The torch module, in evaluation mode."""
    facts: ModelFacts
    """How it was trained."""

    def __init__(self, network: Disentangler, facts: ModelFacts) -> None:
        self.network, self.facts = network.eval(), facts
        self.fps = facts.fps
        """Frames per second at which videos are read; None reads every frame."""

    @property
    def config(self) -> ModelConfig:
        """The settings of the network."""
        return self.network.config

    @property
    def clip_frames(self) -> int:
        """Frames that are used of each clip, as many as the clips had in training."""
        return self.facts.clip_frames

    def encode(self, clips: Clips) -> Codes:
        """Return the codes of clips: `static` [B, K], `pose` [B, T, Z] and `dynamics` [B, D], f32.

        `static` is a point on a simplex, a blend of the experts. `dynamics` means nothing without a sequence stage.
        """
        frames, single = self._read(clips, "clips", stills=True)
        return _unbatched(self._encode(frames), single)

    def decode(self, static: Tensor, dynamics: Tensor, frames: int | None = None) -> Frames:
        """Return the clips of static codes [B, K] and dynamics codes [B, D]: uint8 [B, frames, H, W, C].

        `encode` gives such codes; those of different clips can be combined, interpolated and edited. A code without the
        axis B is combined with each of the others.
        """
        self._require_sequence_stage("decode")
        single = static.ndim == dynamics.ndim == 1
        pair = _matched(torch.atleast_2d(static), torch.atleast_2d(dynamics), "static and dynamics codes")
        return _unbatched(self._decode(*pair, frames), single)

    def swap(self, static_of: Clips, dynamics_of: Clips, frames: int | None = None) -> Frames:
        """Return clips in which who is seen in some clips does what is done in others: uint8 [B, frames, H, W, C].

        Args:
            static_of: clips that give the identity; a file may be a still picture.
            dynamics_of: clips that give the action, as many; or one of the two is a single clip, for all of the others.
            frames: length of the clips, by default that of training. A model without a sequence stage copies the poses,
                which are not more than the clip has.
        """
        (who, one), (action, other) = self._read(static_of, "static_of", stills=True), self._read(dynamics_of)
        static, moving = self._encode(who).static, self._encode(action)
        if self.facts.sequence_stage:
            pair = _matched(static, moving.dynamics, "clips in static_of and dynamics_of")
            return _unbatched(self._decode(*pair, frames), one and other)
        if frames not in (None, self.clip_frames):
            self._require_sequence_stage(f"frames={frames}")
        static, pose = _matched(static, moving.pose, "clips in static_of and dynamics_of")
        return _unbatched(self._in_batches(self.network.decode, pose, static), one and other)

    def reconstruct(self, clips: Clips) -> Frames:
        """Return clips decoded from their own poses and static codes, frame by frame: uint8 [B, T, H, W, C]."""
        frames, single = self._read(clips, "clips", stills=True)
        codes = self._encode(frames)
        return _unbatched(self._in_batches(self.network.decode, codes.pose, codes.static), single)

    def sample(self, n: int, seed: int = 0, frames: int | None = None) -> Frames:
        """Return new clips, all codes drawn from the prior, fitted if there is one: uint8 [n, frames, H, W, C].

        The same seed gives the same clips.
        """
        self._require_sequence_stage("sample")
        if n < 1:
            raise ValueError(f"n is {n}; it must be at least 1")
        with torch.inference_mode():
            generator = torch.Generator().manual_seed(seed)
            return to_pixels(self.network.sample_prior(n, self._length(frames), generator))

    def rollout(self, clips: Clips, frames: int) -> Frames:
        """Return clips and their continuation by the model to any length: uint8 [B, frames, H, W, C]."""
        self._require_sequence_stage("rollout")
        read, single = self._read(clips)
        codes = self._encode(read)
        return _unbatched(self._decode(codes.static, codes.dynamics, frames), single)

    def _encode(self, frames: Tensor) -> Codes:
        with torch.inference_mode():
            parts = [self.network.encode(to_float(batch.to(self._device))) for batch in frames.split(BATCH_CLIPS)]
            return Codes(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))

    def _decode(self, static: Tensor, dynamics: Tensor, frames: int | None) -> Frames:
        length = self._length(frames)

        def decode(dynamics: Tensor, static: Tensor) -> Tensor:
            return self.network.decode(self.network.poses(dynamics, length), static)

        return self._in_batches(decode, dynamics, static)

    def _in_batches(self, decode: Callable[[Tensor, Tensor], Tensor], moving: Tensor, static: Tensor) -> Frames:
        with torch.inference_mode():
            batches = zip(moving.split(BATCH_CLIPS), static.split(BATCH_CLIPS), strict=True)
            parts = [to_pixels(decode(*(code.to(self._device) for code in batch))) for batch in batches]
        return np.concatenate(parts)

    @property
    def _device(self) -> torch.device:
        return device_of(self.network)

    def _length(self, frames: int | None) -> int:
        if frames is not None and frames < 1:
            raise ValueError(f"frames is {frames}; it must be at least 1")
        return frames or self.clip_frames

    def _require_sequence_stage(self, what: str) -> None:
        if not self.facts.sequence_stage:
            raise ValueError(f"{what} needs the sequence stage, which this model lacks; train it further")

    def _read(self, clips: Clips, name: str = "dynamics_of", *, stills: bool = False) -> tuple[Tensor, bool]:
        """Return clips as uint8 [B, T, H, W, C] with the T of training, and whether it was a single clip.

        Raises:
            ValueError: a file cannot be read, or the clips are not as the model needs them.
        """
        read = clips
        if isinstance(clips, str | Path) or not isinstance(clips, np.ndarray | Tensor):
            names = [clips] if isinstance(clips, str | Path) else list(clips)
            if not names or not all(isinstance(one, str | Path) for one in names):
                raise ValueError(f"{name} holds no clip; give uint8 [B, T, H, W, C], or file names")
            read = reader(str(names[0])).read_clips(
                [str(one) for one in names],
                size=self.config.frame_size,
                channels=self.config.channels,
                clip_frames=self.clip_frames,
                fps=self.fps,
                stills=stills,
            )
            if isinstance(clips, str | Path) and len(read) == 1:
                read = read[0]
        # A copy of an array, which may be read-only or have negative strides.
        tensor = torch.from_numpy(np.array(read)) if isinstance(read, np.ndarray) else torch.as_tensor(read)
        size, channels = self.config.frame_size, self.config.channels
        frame = (size, size, channels)
        if tensor.dtype != torch.uint8 or tensor.ndim not in (4, 5) or tensor.shape[-3:] != frame or not len(tensor):
            raise ValueError(
                f"{name} is {str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}; it must be uint8 "
                f"[T, {size}, {size}, {channels}] or [B, T, {size}, {size}, {channels}]"
            )
        if tensor.shape[-4] < self.clip_frames:
            raise ValueError(
                f"{name} has {tensor.shape[-4]} frames; the model needs {self.clip_frames}, give longer clips"
            )
        batch = tensor if tensor.ndim == 5 else tensor[None]
        return batch[:, : self.clip_frames], tensor.ndim == 4


def _matched(first: Tensor, second: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """Return two batches of the same length, of which one may be a single element for all of the other.

    Raises:
        ValueError: they have different lengths.
    """
    count = max(len(first), len(second))
    if not {len(first), len(second)} <= {1, count}:
        raise ValueError(f"there are {len(first)} and {len(second)} {what}; give equal numbers, or one for all")
    return first.expand(count, *first.shape[1:]), second.expand(count, *second.shape[1:])


def _unbatched(result: T, single: bool) -> T:
    """Return the result without its axis B if it is of a single clip."""
    if not single:
        return result
    return Codes(*(part[0] for part in result)) if isinstance(result, Codes) else result[0, ...]

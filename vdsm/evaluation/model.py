"""The interface of a model to the evaluation, and the codes of many clips."""

from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vdsm.device import device_of
from vdsm.evaluation.clips import LabelledClips, stack
from vdsm.evaluation.progress import NO_PROGRESS, Progress, in_batches


class ClipCodes(Protocol):
    """Codes of a batch of clips; any object with these attributes."""

    @property
    def static(self) -> Tensor:
        """[B, K]"""

    @property
    def pose(self) -> Tensor:
        """[B, T, Z]"""

    @property
    def dynamics(self) -> Tensor:
        """[B, D]"""


class SwapModel(Protocol):
    """Any model that separates clips into a static code, poses and a dynamics code, such as `Disentangler`."""

    def encode(self, frames: Tensor) -> ClipCodes:
        """Return the codes of frames f32 [B, T, C, H, W] in [0, 1]."""

    def poses(self, dynamics: Tensor, length: int) -> Tensor:
        """Return the poses [B, length, Z] of dynamics codes [B, D]."""

    def decode(self, pose: Tensor, static: Tensor) -> Tensor:
        """Return the frames [B, T, C, H, W] in [0, 1] of poses [B, T, Z] and static codes [B, K]."""

    def sample_static(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw static codes [count, K] from the prior."""

    def sample_dynamics(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw dynamics codes [count, D] from the prior."""


class CodeTable(NamedTuple):
    """Codes of all clips of a split, on the CPU."""

    static: Tensor
    """[N, K]"""
    pose: Tensor
    """[N, T, Z]"""
    dynamics: Tensor
    """[N, D]"""


@torch.inference_mode()
def encode_clips(
    model: SwapModel,
    clips: LabelledClips,
    length: int,
    batch_clips: int = 32,
    progress: Progress = NO_PROGRESS,
    indices: NDArray[np.int64] | None = None,
    *,
    phase: str = "encoding clips",
) -> CodeTable:
    """Return the codes of the first `length` frames of the clips at `indices`, by default of all.

    Args:
        model: encodes the clips.
        clips: any split.
        length: frames of each clip.
        batch_clips: clips encoded at once.
        progress: receives one phase.
        indices: int64 [N].
        phase: its name.
    """
    chosen = np.arange(len(clips)) if indices is None else indices
    parts = []
    progress.start(phase, len(chosen), unit="clips")
    for batch in in_batches(len(chosen), batch_clips, progress):
        codes = model.encode(stack(clips, chosen[batch], length, device=device_of(model)))
        parts.append((codes.static, codes.pose, codes.dynamics))
    return CodeTable(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))

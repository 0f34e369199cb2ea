"""What the evaluation asks of a model, and the codes of many clips."""

from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vdsm.evaluation.clips import LabelledClips, stack
from vdsm.evaluation.progress import NO_PROGRESS, Progress


class ClipCodes(Protocol):
    """Codes of a batch of clips; any tuple-like object with these names will do."""

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
    """Any model that separates clips into a static code, poses and a dynamics code, such as `vdsm.Disentangler`."""

    def encode(self, frames: Tensor) -> ClipCodes:
        """f32 [B, T, C, H, W] in [0, 1] -> codes."""

    def poses(self, dynamics: Tensor, length: int) -> Tensor:
        """Dynamics codes [B, D] -> poses [B, length, Z]."""

    def decode(self, pose: Tensor, static: Tensor) -> Tensor:
        """Poses [B, T, Z] and static codes [B, K] -> frames [B, T, C, H, W] in [0, 1]."""

    def sample_static(self, count: int, generator: torch.Generator) -> Tensor:
        """Static codes [count, K] from the prior."""

    def sample_dynamics(self, count: int, generator: torch.Generator) -> Tensor:
        """Dynamics codes [count, D] from the prior."""


class CodeTable(NamedTuple):
    """Codes of all clips of a split."""

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
) -> CodeTable:
    """Codes of the first `length` frames of the clips at `indices`, or of every clip."""
    wanted = np.arange(len(clips)) if indices is None else indices
    parts = []
    progress.start("encoding clips", len(wanted), unit="clips")
    for start in range(0, len(wanted), batch_clips):
        batch = wanted[start : start + batch_clips]
        codes = model.encode(stack(clips, batch, length))
        parts.append((codes.static, codes.pose, codes.dynamics))
        progress.advance(len(batch))
    return CodeTable(*(torch.cat(column) for column in zip(*parts, strict=True)))

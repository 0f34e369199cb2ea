"""All outputs decoded for the pairs, judged batch by batch, so that memory does not grow with their number.

Letters: P pairs of clips A (dynamics) and B (static); N test clips.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vdsm.device import device_of, upload
from vdsm.evaluation.judge import Judge, Verdicts, join, judge_frames
from vdsm.evaluation.judged_scores import Outputs
from vdsm.evaluation.model import CodeTable, SwapModel
from vdsm.evaluation.pairs import Indices, Pairs
from vdsm.evaluation.progress import Progress, in_batches

BatchObserver = Callable[[Tensor], None]
"""Receives every batch of decoded frames f32 [B, T, C, H, W], in the order of the pairs."""


@dataclass(frozen=True)
class SwapDecoder:
    """A model with the codes of the test clips: decodes any combination of them."""

    model: SwapModel
    codes: CodeTable
    length: int
    """Frames per clip."""
    batch_clips: int = 32
    """Clips decoded at once."""

    def swap(self, dynamics_of: Indices, static_of: Indices) -> Tensor:
        """Decode A's dynamics code with B's static code (stage 2): [B, T, C, H, W]."""
        return self.of_codes(self.codes.dynamics[dynamics_of], self.codes.static[static_of])

    def pose_swap(self, dynamics_of: Indices, static_of: Indices) -> Tensor:
        """Decode the poses of A's own frames with B's static code (stage 1 alone): [B, T, C, H, W]."""
        return self.pose_with_static(dynamics_of, self.codes.static[static_of])

    def with_static(self, dynamics_of: Indices, static: Tensor) -> Tensor:
        """Decode A's dynamics code with given static codes [B, K]: [B, T, C, H, W]."""
        return self.of_codes(self.codes.dynamics[dynamics_of], static)

    def pose_with_static(self, dynamics_of: Indices, static: Tensor) -> Tensor:
        """Decode the poses of A's own frames with given static codes [B, K]: [B, T, C, H, W]."""
        return self.model.decode(self._moved(self.codes.pose[dynamics_of]), self._moved(static))

    def with_dynamics(self, dynamics: Tensor, static_of: Indices) -> Tensor:
        """Decode given dynamics codes [B, D] with B's static code: [B, T, C, H, W]."""
        return self.of_codes(dynamics, self.codes.static[static_of])

    def of_codes(self, dynamics: Tensor, static: Tensor) -> Tensor:
        """Decode given dynamics codes [B, D] with given static codes [B, K]: [B, T, C, H, W]."""
        return self.model.decode(self._poses(dynamics), self._moved(static))

    def _poses(self, dynamics: Tensor) -> Tensor:
        return self.model.poses(self._moved(dynamics), self.length)

    def _moved(self, codes: Tensor) -> Tensor:
        return upload(codes, device_of(self.model))


def slice_decoder(swap: Callable[[Indices, Indices], Tensor], pairs: Pairs) -> Callable[[slice], Tensor]:
    """Return a decoder of slices of the pairs; `swap` is `SwapDecoder.swap`, or a function like it."""
    return lambda batch: swap(pairs.dynamics_of[batch], pairs.static_of[batch])


@torch.inference_mode()
def decode_batches(
    count: int,
    decode: Callable[[slice], Tensor],
    batch_clips: int,
    phase: str,
    progress: Progress,
    *observers: BatchObserver,
) -> None:
    """Decode `count` clips in consecutive slices; every observer receives every batch, none is kept."""
    progress.start(phase, count, unit="clips")
    for batch in in_batches(count, batch_clips, progress):
        frames = decode(batch)
        for observer in observers:
            observer(frames)


class VerdictCollector:
    """An observer that keeps the judge's verdicts."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._parts: list[Verdicts] = []

    def __call__(self, frames: Tensor) -> None:
        """Judge a batch."""
        self._parts.append(judge_frames(self._judge, frames))

    @property
    def verdicts(self) -> Verdicts:
        """Verdicts on all batches so far."""
        return join(self._parts)


def judge_pairs(
    judge: Judge, pairs: Pairs, decode: Callable[[slice], Tensor], batch_clips: int, phase: str, progress: Progress,
    *observers: BatchObserver,
) -> Verdicts:  # fmt: skip
    """Return verdicts on `decode(batch)` for consecutive slices of the pairs; `observers` receive every batch too."""
    collector = VerdictCollector(judge)
    decode_batches(len(pairs), decode, batch_clips, phase, progress, collector, *observers)
    return collector.verdicts


def judged_outputs(
    judge: Judge,
    decoder: SwapDecoder,
    pairs: Pairs,
    sequence_stage: bool,
    seed: int,
    progress: Progress,
    *observers: BatchObserver,
) -> Outputs:
    """Return verdicts on all outputs of a model for the pairs; `observers` receive the swaps.

    Without a sequence stage there are no dynamics codes: clips are only reconstructed from their poses.
    """
    size = decoder.batch_clips
    reconstructed = np.unique(pairs.dynamics_of)
    own = Pairs(reconstructed, reconstructed)
    reconstruction = judge_pairs(judge, own, slice_decoder(decoder.pose_swap, own), size, "reconstructing", progress)
    if not sequence_stage:
        return Outputs(reconstruction=reconstruction, reconstructed=reconstructed)
    generator = torch.Generator().manual_seed(seed)
    static = decoder.model.sample_static(len(pairs), generator)
    dynamics = decoder.model.sample_dynamics(len(pairs), generator)
    return Outputs(
        swap=judge_pairs(
            judge, pairs, slice_decoder(decoder.swap, pairs), size, "swapping dynamics codes", progress, *observers
        ),
        prior_static=judge_pairs(
            judge, pairs, lambda batch: decoder.with_static(pairs.dynamics_of[batch], static[batch]), size,
            "sampling identities", progress,
        ),
        prior_dynamics=judge_pairs(
            judge, pairs, lambda batch: decoder.with_dynamics(dynamics[batch], pairs.static_of[batch]), size,
            "sampling actions", progress,
        ),
        reconstruction=reconstruction,
        reconstructed=reconstructed,
    )  # fmt: skip

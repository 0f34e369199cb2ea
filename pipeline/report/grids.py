"""Grids of clips: which clips a report or `vdsm generate` shows, and their decoding.

Every choice follows from the order of the clips, never from how they look. Functions that decode advance the current
phase of `progress` by the number of decoded clips; their callers start the phase.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.report.images import Frames
from preprocessing.spread import evenly_spread
from vdsm.evaluation.clips import ACTION, LabelledClips
from vdsm.evaluation.outputs import SwapDecoder
from vdsm.evaluation.progress import NO_PROGRESS, Progress, in_batches
from vdsm.pixels import to_pixels

Indices = NDArray[np.int64]
Cells = list[list[Frames | None]]
"""Rows of clips of equal size; None leaves a cell empty."""
UNLABELLED_DONORS = 6
"""Donors of actions where the data has no action label."""


def to_uint8(frames: Tensor) -> list[Frames]:
    """Convert f32 [B, T, C, H, W] in [0, 1] to B clips uint8 [T, H, W, C]."""
    return list(to_pixels(frames))


def real_clips(clips: LabelledClips, indices: Sequence[int] | Indices, length: int) -> list[Frames]:
    """Return the first `length` frames of real clips; a shorter clip repeats its last frame."""
    return [fit_length(clips.frames(int(index)), length) for index in indices]


def fit_length(clip: Frames, length: int) -> Frames:
    """Return the first `length` frames; a shorter clip repeats its last frame."""
    return clip[np.minimum(np.arange(length), len(clip) - 1)]


def in_rows(clips: Sequence[Frames], columns: int) -> Cells:
    """Arrange clips from left to right, row after row; the last row may have empty cells."""
    rows: Cells = [list(clips[start : start + columns]) for start in range(0, len(clips), columns)]
    rows[-1] += [None] * (columns - len(rows[-1]))
    return rows


def action_donors(clips: LabelledClips) -> Indices:
    """Return one clip per action of the test split, each of another identity where possible.

    Without action labels: one clip of each of UNLABELLED_DONORS identities, evenly spaced over the split.
    """
    if ACTION not in clips.vocabulary:
        donors = identity_donors(clips, len(clips))
        return donors[evenly_spread(len(donors), UNLABELLED_DONORS)]
    chosen: list[int] = []
    used: set[str] = set()
    for action in range(len(clips.vocabulary[ACTION])):
        candidates = np.flatnonzero(clips.labels[ACTION] == action)
        if not len(candidates):
            continue
        unused = [int(index) for index in candidates if clips.identities[int(index)] not in used]
        chosen.append(unused[0] if unused else int(candidates[0]))
        used.add(clips.identities[chosen[-1]])
    return np.array(chosen, dtype=np.int64)


def identity_donors(clips: LabelledClips, most: int) -> Indices:
    """Return one clip per test identity in the order of the split, at most `most`.

    Neighbouring clips show different actions, so that the first row of a grid makes it visible that the action of the
    identity's donor has no effect.
    """
    indices_of: dict[str, list[int]] = {}
    for index, identity in enumerate(clips.identities):
        indices_of.setdefault(identity, []).append(index)
    kept = list(indices_of.values())[:most]
    return np.array([indices[number % len(indices)] for number, indices in enumerate(kept)], dtype=np.int64)


@torch.inference_mode()
def decode_swaps(
    decoder: SwapDecoder,
    dynamics_of: Indices,
    static_of: Indices,
    sequence_stage: bool,
    progress: Progress = NO_PROGRESS,
) -> list[Frames]:
    """Decode the swap of each pair of clips: uint8 [T, H, W, C] each.

    Swaps go through the dynamics code or, without a sequence stage, through the poses.
    """
    swap = decoder.swap if sequence_stage else decoder.pose_swap
    cells: list[Frames] = []
    for batch in in_batches(len(dynamics_of), decoder.batch_clips, progress):
        decoded = to_uint8(swap(dynamics_of[batch], static_of[batch]))
        cells += [fit_length(clip, decoder.length) for clip in decoded]
    return cells


def transfer_grid(
    decoder: SwapDecoder,
    clips: LabelledClips,
    action_clips: Indices,
    identity_clips: Indices,
    sequence_stage: bool,
    progress: Progress = NO_PROGRESS,
) -> Cells:
    """Return the action-transfer grid.

    The donors of the action are in the first column, those of the identity in the first row. Each inner cell shows the
    identity above it performing the action on its left.
    """
    decoded = decode_swaps(
        decoder, np.repeat(action_clips, len(identity_clips)), np.tile(identity_clips, len(action_clips)),
        sequence_stage, progress,
    )  # fmt: skip
    rows: Cells = [[None, *real_clips(clips, identity_clips, decoder.length)]]
    for number, donor in enumerate(real_clips(clips, action_clips, decoder.length)):
        rows.append([donor, *decoded[number * len(identity_clips) : (number + 1) * len(identity_clips)]])
    return rows


def reconstruction_rows(
    decoder: SwapDecoder,
    clips: LabelledClips,
    indices: Indices,
    sequence_stage: bool,
    progress: Progress = NO_PROGRESS,
) -> Cells:
    """Return rows of real clips, reconstructions from poses and, with a sequence stage, from dynamics codes."""
    rows: Cells = [list(real_clips(clips, indices, decoder.length))]
    rows.append(list(decode_swaps(decoder, indices, indices, False, progress)))
    if sequence_stage:
        rows.append(list(decode_swaps(decoder, indices, indices, True, progress)))
    return rows

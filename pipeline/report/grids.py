"""Which clips a report or a picture shows, and their decoding. Every choice follows from the order of the clips."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.report.pictures import Frames
from vdsm.evaluation.clips import ACTION, LabelledClips
from vdsm.evaluation.outputs import SwapDecoder
from vdsm.evaluation.progress import NO_PROGRESS, Progress

Indices = NDArray[np.int64]
Cells = list[list[Frames | None]]
"""Clips of one size in rows; None leaves a place empty."""


def to_uint8(frames: Tensor) -> list[Frames]:
    """f32 [B, T, C, H, W] in [0, 1] -> B clips uint8 [T, H, W, C]."""
    pixels = (frames.clamp(0, 1) * 255).round().to(torch.uint8)
    return list(pixels.permute(0, 1, 3, 4, 2).numpy())


def real(clips: LabelledClips, indices: Sequence[int] | Indices, length: int) -> list[Frames]:
    """The first `length` frames of real clips; of a shorter clip the last frame stays."""
    return [fitted(clips.frames(int(index)), length) for index in indices]


def fitted(clip: Frames, length: int) -> Frames:
    """The first `length` frames; where there are fewer, the last one stays."""
    return clip[np.minimum(np.arange(length), len(clip) - 1)]


def action_donors(clips: LabelledClips, unlabelled: int = 6) -> Indices:
    """For each action that the test split has, one clip that gives it: each of another identity where possible.

    Without action labels: one clip of each of `unlabelled` identities, spread over the split.
    """
    if ACTION not in clips.vocabulary:
        everybody = identity_donors(clips, len(clips))
        return everybody[np.linspace(0, len(everybody) - 1, min(unlabelled, len(everybody))).round().astype(np.int64)]
    chosen: list[int] = []
    used: set[str] = set()
    for action in range(len(clips.vocabulary[ACTION])):
        candidates = np.flatnonzero(clips.labels[ACTION] == action)
        if not len(candidates):
            continue
        fresh = [int(index) for index in candidates if clips.identities[int(index)] not in used]
        chosen.append(fresh[0] if fresh else int(candidates[0]))
        used.add(clips.identities[chosen[-1]])
    return np.array(chosen, dtype=np.int64)


def identity_donors(clips: LabelledClips, most: int) -> Indices:
    """One clip of each test identity in the order of the split, `most` at most. Its action is not that of its
    neighbour's clip, so that the first row shows that the action of the identity's donor does not matter."""
    positions: dict[str, list[int]] = {}
    for index, identity in enumerate(clips.identities):
        positions.setdefault(identity, []).append(index)
    kept = list(positions.values())[:most]
    return np.array([places[number % len(places)] for number, places in enumerate(kept)], dtype=np.int64)


@torch.inference_mode()
def decode_cells(
    decoder: SwapDecoder,
    dynamics_of: Indices,
    static_of: Indices,
    sequence_stage: bool,
    what: str,
    progress: Progress = NO_PROGRESS,
) -> list[Frames]:
    """The swap of each pair of clips, through the dynamics code or, without a sequence stage, through the poses."""
    swap = decoder.swap if sequence_stage else decoder.pose_swap
    cells: list[Frames] = []
    progress.start(what, len(dynamics_of), unit="clips")
    for start in range(0, len(dynamics_of), decoder.batch_clips):
        batch = slice(start, start + decoder.batch_clips)
        decoded = to_uint8(swap(dynamics_of[batch], static_of[batch]))
        cells += [fitted(clip, decoder.length) for clip in decoded]
        progress.advance(len(decoded))
    return cells


def transfer_grid(
    decoder: SwapDecoder,
    clips: LabelledClips,
    actions: Indices,
    people: Indices,
    sequence_stage: bool,
    progress: Progress = NO_PROGRESS,
) -> Cells:
    """Cells of the action-transfer grid: the donors of the action in the first column, those of the identity in the
    first row, and each inner cell the identity above doing what is done to the left."""
    cells = decode_cells(
        decoder, np.repeat(actions, len(people)), np.tile(people, len(actions)), sequence_stage,
        "drawing the action-transfer grid", progress,
    )  # fmt: skip
    left = real(clips, actions, decoder.length)
    rows: Cells = [[None, *real(clips, people, decoder.length)]]
    for number, donor in enumerate(left):
        rows.append([donor, *cells[number * len(people) : (number + 1) * len(people)]])
    return rows


def reconstruction_rows(decoder: SwapDecoder, clips: LabelledClips, indices: Indices, sequence_stage: bool) -> Cells:
    """Real clips; their reconstructions from poses; with a sequence stage also from their dynamics code."""
    rows: Cells = [list(real(clips, indices, decoder.length))]
    rows.append(list(decode_cells(decoder, indices, indices, False, "reconstructing")))
    if sequence_stage:
        rows.append(list(decode_cells(decoder, indices, indices, True, "reconstructing")))
    return rows


@torch.inference_mode()
def prior_rows(
    decoder: SwapDecoder,
    clips: LabelledClips,
    actions: Indices,
    people: Indices,
    columns: int,
    sequence_stage: bool,
    seed: int,
) -> dict[str, Cells]:
    """Samples of the prior: `static` (a row per action, new identities in columns) and, with a sequence stage,
    `dynamics` (a row per identity, new dynamics in columns). The first cell of a row is the real donor."""
    generator = torch.Generator().manual_seed(seed)
    model = decoder.model
    found: dict[str, Cells] = {"static": []}
    identities = model.sample_static(columns, generator)
    for action in actions:
        index = np.repeat(action, columns)
        drawn = (
            decoder.with_static(index, identities)
            if sequence_stage
            else model.decode(decoder.codes.pose[index], identities)
        )
        found["static"].append(
            [*real(clips, [int(action)], decoder.length), *(fitted(cell, decoder.length) for cell in to_uint8(drawn))]
        )
    if sequence_stage:
        dynamics = model.sample_dynamics(columns, generator)
        found["dynamics"] = []
        for person in people:
            drawn = decoder.with_dynamics(dynamics, np.repeat(person, columns))
            found["dynamics"].append([*real(clips, [int(person)], decoder.length), *to_uint8(drawn)])
    return found

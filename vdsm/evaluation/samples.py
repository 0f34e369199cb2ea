"""Clips that another system made of the pairs, measured as ours are.

A sample is its frames and the keys of its donors: (dynamics, static). An empty key is a code drawn from the prior;
twice the same key is a reconstruction.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vdsm.evaluation.clips import LabelledClips, batch_of
from vdsm.evaluation.controls import control_scores
from vdsm.evaluation.judge import Judge, Verdicts, join, judge_clips, judge_frames
from vdsm.evaluation.judged_scores import Outputs, judge_scores, output_scores
from vdsm.evaluation.measurement import Swapped, swapped_of
from vdsm.evaluation.pairs import Pairs
from vdsm.evaluation.progress import NO_PROGRESS, Progress
from vdsm.evaluation.reconstruction import reconstruction_scores, some_of
from vdsm.evaluation.renderer import Renderer, renderer_scores
from vdsm.evaluation.scores import Score

Donors = tuple[str, str]
"""Keys of the clips that gave the dynamics and the static code."""


class Samples(NamedTuple):
    """Some samples of a system."""

    frames: NDArray[np.uint8]
    """uint8 [N, T, H, W, C]."""
    donors: list[Donors]
    """Of each."""


class SampleScores(NamedTuple):
    """What is found of samples."""

    scores: dict[str, Score]
    controls: dict[str, dict[str, Score]]
    swapped: Swapped


def donors_of(clips: LabelledClips, pairs: Pairs) -> dict[str, list[Donors]]:
    """What a system is asked to make of each pair, by kind."""
    keys = [(clips.keys[int(a)], clips.keys[int(b)]) for a, b in zip(pairs.dynamics_of, pairs.static_of, strict=True)]
    return {
        "swap": keys,
        "prior_static": [(first, "") for first, _ in keys],
        "prior_dynamics": [("", second) for _, second in keys],
        "reconstruction": [(first, first) for first, _ in keys],
    }


def score_samples(
    judge: Judge, clips: LabelledClips, pairs: Pairs, parts: Iterable[Samples], length: int, seed: int,
    progress: Progress = NO_PROGRESS, *, renderer: Renderer | None = None,
) -> SampleScores:  # fmt: skip
    """The judged scores of samples, with the controls; of a model's codes nothing can be known.

    Args:
        judge: trained on the training split.
        clips: the test split.
        pairs: whose samples they are.
        parts: the samples, in any order; one part is in memory at a time.
        length: frames of each.
        seed: of the intervals.
        progress: told how far it is.
        renderer: as in `measure`.

    Raises:
        ValueError: samples are missing, given twice, or were not asked for.
    """
    wanted, size = donors_of(clips, pairs), batch_of(length)
    compared = some_of(np.unique(pairs.dynamics_of))
    keep = {(clips.keys[int(index)], clips.keys[int(index)]) for index in compared}
    verdicts: dict[Donors, Verdicts] = {}
    kept: dict[Donors, NDArray[np.uint8]] = {}
    asked = {donors for kind in wanted.values() for donors in kind}
    progress.start("judging samples", len(asked), unit="clips")
    for part in parts:
        for donors in part.donors:
            if donors not in asked:
                raise ValueError(f"a sample of dynamics {donors[0]!r} and static {donors[1]!r} was not asked for")
        for start in range(0, len(part.donors), size):
            batch = slice(start, start + size)
            judged = judge_frames(judge, _floats(part.frames[batch]))
            for place, donors in enumerate(part.donors[batch]):
                if donors in verdicts:
                    raise ValueError(f"the sample of dynamics {donors[0]!r} and static {donors[1]!r} is there twice")
                verdicts[donors] = _row(judged, place)
                if donors in keep:
                    kept[donors] = part.frames[start + place].copy()
            progress.advance(len(part.donors[batch]))
    _check_complete(wanted, verdicts)
    real = judge_clips(judge, clips, length, size, progress)
    made = {
        kind: join([verdicts[donors] for donors in asked_of])
        for kind, asked_of in wanted.items()
        if kind != "reconstruction" and asked_of[0] in verdicts
    }
    everything = np.unique(pairs.dynamics_of)
    outputs = Outputs(made["swap"], made.get("prior_static"), made.get("prior_dynamics"))
    if kept:
        again = join([verdicts[clips.keys[int(index)], clips.keys[int(index)]] for index in everything])
        outputs = replace(outputs, reconstruction=again, reconstructed=everything)
    scores = judge_scores(clips, real, seed) | output_scores(clips, pairs, outputs, real, seed)
    if kept:
        scores |= reconstruction_scores(
            clips, compared, length,
            lambda batch: _floats(np.stack([kept[clips.keys[int(index)], clips.keys[int(index)]] for index in batch])),
            size, seed, progress,
        )  # fmt: skip
    controls = control_scores(clips, pairs, real, seed)
    if renderer is not None:
        controls["renderer"] = renderer_scores(judge, clips, pairs, renderer, real, length, size, seed, progress)
    return SampleScores(scores, controls, swapped_of(clips, pairs, made["swap"].values))


def _check_complete(wanted: Mapping[str, list[Donors]], found: Mapping[Donors, Verdicts]) -> None:
    for kind, every in wanted.items():
        donors = list(dict.fromkeys(every))
        missing = [pair for pair in donors if pair not in found]
        if missing and (kind == "swap" or len(missing) < len(donors)):
            first, second = missing[0]
            raise ValueError(
                f"{len(missing):,} of {len(donors):,} samples of the kind {kind} are missing, such as that of dynamics "
                f"{first!r} and static {second!r}"
            )


def _row(verdicts: Verdicts, place: int) -> Verdicts:
    row = slice(place, place + 1)
    values = {name: value[row] for name, value in verdicts.values.items()}
    return Verdicts(verdicts.action[row], values, verdicts.features[row])


def _floats(frames: NDArray[np.uint8]) -> Tensor:
    """uint8 [B, T, H, W, C] -> f32 [B, T, C, H, W] in [0, 1]."""
    return torch.from_numpy(frames).permute(0, 1, 4, 2, 3).contiguous().float().div_(255)

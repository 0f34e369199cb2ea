"""Clips that another system generated for the pairs, measured like the outputs of our own models.

A sample consists of its frames and the keys of its donors: (dynamics, static). An empty key is a code drawn from the
prior; the same key twice is a reconstruction.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vdsm.evaluation.clips import LabelledClips, clips_per_batch
from vdsm.evaluation.controls import CONTROL_PHASES, control_scores
from vdsm.evaluation.judge import Judge, Verdicts, join, judge_clips, judge_frames
from vdsm.evaluation.judged_scores import Outputs, judge_scores, output_scores
from vdsm.evaluation.measurement import Swapped, summarise_swaps
from vdsm.evaluation.pairs import Indices, Pairs
from vdsm.evaluation.progress import NO_PROGRESS, Progress
from vdsm.evaluation.reconstruction import reconstruction_scores, subsample
from vdsm.evaluation.renderer import RENDERER_PHASES, Renderer, renderer_scores
from vdsm.evaluation.scores import Score

Donors = tuple[str, str]
"""Keys of the clips that gave the dynamics and the static code."""


class Samples(NamedTuple):
    """Some samples of a system."""

    frames: NDArray[np.uint8]
    """uint8 [N, T, H, W, C]."""
    donors: list[Donors]
    """Donors of each sample."""


class SampleScores(NamedTuple):
    """What is measured on samples."""

    scores: dict[str, Score]
    controls: dict[str, dict[str, Score]]
    swapped: Swapped


def wanted_donors(clips: LabelledClips, pairs: Pairs) -> dict[str, list[Donors]]:
    """Return the donors of the sample that a system should generate for each pair, by kind."""
    keys = [(clips.keys[int(a)], clips.keys[int(b)]) for a, b in zip(pairs.dynamics_of, pairs.static_of, strict=True)]
    return {
        "swap": keys,
        "prior_static": [(first, "") for first, _ in keys],
        "prior_dynamics": [("", second) for _, second in keys],
        "reconstruction": [(first, first) for first, _ in keys],
    }


def sample_phases(*, renderer: bool) -> list[str]:
    """Return the phases of progress that `score_samples` starts, in order."""
    found = ["judging samples", "judging real test clips", "scoring the samples", "comparing reconstructions"]
    return [*found, *CONTROL_PHASES, *(RENDERER_PHASES if renderer else ())]


def score_samples(
    judge: Judge, clips: LabelledClips, pairs: Pairs, parts: Iterable[Samples], length: int, seed: int,
    progress: Progress = NO_PROGRESS, *, renderer: Renderer | None = None,
) -> SampleScores:  # fmt: skip
    """Return the judged scores of samples, with the controls. The codes of their model cannot be measured.

    Args:
        judge: trained on the training split.
        clips: the test split.
        pairs: the pairs of the samples.
        parts: the samples, in any order; one part is in memory at a time.
        length: frames of each sample.
        seed: seed of the intervals.
        progress: receives the phases listed by `sample_phases`.
        renderer: as in `measure`.

    Raises:
        ValueError: samples are missing, duplicated, or do not belong to the pairs.
    """
    wanted, size = wanted_donors(clips, pairs), clips_per_batch(length)
    verdicts, kept = _judge_samples(judge, clips, pairs, parts, length, progress)
    _check_complete(wanted, verdicts)
    real = judge_clips(judge, clips, length, size, progress)
    judged = {
        kind: join([verdicts[pair] for pair in donors])
        for kind, donors in wanted.items()
        if kind != "reconstruction" and donors[0] in verdicts
    }
    outputs = Outputs(judged["swap"], judged.get("prior_static"), judged.get("prior_dynamics"))
    if kept:
        reconstructed = np.unique(pairs.dynamics_of)
        own = join([verdicts[_own_donors(clips, int(index))] for index in reconstructed])
        outputs = replace(outputs, reconstruction=own, reconstructed=reconstructed)
    progress.start("scoring the samples", outputs.frechet_resamples, unit="resamples")
    scores = judge_scores(clips, real, seed) | output_scores(clips, pairs, outputs, real, seed, progress)

    def decode(batch: Indices) -> Tensor:
        return _floats(np.stack([kept[_own_donors(clips, int(index))] for index in batch]))

    if kept:
        compared = subsample(np.unique(pairs.dynamics_of))
        scores |= reconstruction_scores(clips, compared, length, decode, size, seed, progress)
    else:
        progress.start("comparing reconstructions", 0, unit="clips")
    controls = control_scores(clips, pairs, real, seed, progress)
    if renderer is not None:
        controls["renderer"] = renderer_scores(judge, clips, pairs, renderer, real, length, size, seed, progress)
    return SampleScores(scores, controls, summarise_swaps(clips, pairs, judged["swap"].values))


def _judge_samples(
    judge: Judge, clips: LabelledClips, pairs: Pairs, parts: Iterable[Samples], length: int, progress: Progress
) -> tuple[dict[Donors, Verdicts], dict[Donors, NDArray[np.uint8]]]:
    """Return the verdict on every sample, and the frames of the reconstructions to compare with real clips."""
    size = clips_per_batch(length)
    wanted = {donors for kind in wanted_donors(clips, pairs).values() for donors in kind}
    keep = {_own_donors(clips, int(index)) for index in subsample(np.unique(pairs.dynamics_of))}
    verdicts: dict[Donors, Verdicts] = {}
    kept: dict[Donors, NDArray[np.uint8]] = {}
    progress.start("judging samples", unit="clips")
    for part in parts:
        for donors in part.donors:
            if donors not in wanted:
                raise ValueError(f"the sample of dynamics {donors[0]!r} and static {donors[1]!r} is not in the pairs")
        for start in range(0, len(part.donors), size):
            batch = slice(start, start + size)
            judged = judge_frames(judge, _floats(part.frames[batch]))
            for row, donors in enumerate(part.donors[batch]):
                if donors in verdicts:
                    raise ValueError(f"the sample of dynamics {donors[0]!r} and static {donors[1]!r} is duplicated")
                verdicts[donors] = _row(judged, row)
                if donors in keep:
                    kept[donors] = part.frames[start + row].copy()
            progress.advance(len(part.donors[batch]))
    return verdicts, kept


def _own_donors(clips: LabelledClips, index: int) -> Donors:
    """Return the donors of a reconstruction."""
    return clips.keys[index], clips.keys[index]


def _check_complete(wanted: Mapping[str, list[Donors]], verdicts: Mapping[Donors, Verdicts]) -> None:
    for kind, every in wanted.items():
        donors = list(dict.fromkeys(every))
        missing = [pair for pair in donors if pair not in verdicts]
        if missing and (kind == "swap" or len(missing) < len(donors)):
            first, second = missing[0]
            raise ValueError(
                f"{len(missing):,} of {len(donors):,} samples of the kind {kind} are missing, such as that of dynamics "
                f"{first!r} and static {second!r}"
            )


def _row(verdicts: Verdicts, row: int) -> Verdicts:
    rows = slice(row, row + 1)
    values = {name: value[rows] for name, value in verdicts.values.items()}
    return Verdicts(verdicts.action[rows], values, verdicts.features[rows])


def _floats(frames: NDArray[np.uint8]) -> Tensor:
    """Convert uint8 [B, T, H, W, C] to f32 [B, T, C, H, W] in [0, 1]."""
    return torch.from_numpy(frames).permute(0, 1, 4, 2, 3).contiguous().float().div_(255)

"""Clips that another system generated for the pairs, measured like the outputs of our own models.

A sample consists of its frames and the keys of its donors: (dynamics, static). An empty key is a code drawn from the
prior; the same key twice is a reconstruction.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vdsm.evaluation.clips import LabelledClips, clips_per_batch, stack
from vdsm.evaluation.controls import CONTROL_PHASES, control_scores
from vdsm.evaluation.finished import KEEP_NOTHING, Block, FinishedWork, Scores, blocks, judge_blocks, scores_once
from vdsm.evaluation.judge import Judge
from vdsm.evaluation.judged_scores import Outputs, judge_scores, output_scores
from vdsm.evaluation.measurement import Swapped, summarise_swaps
from vdsm.evaluation.moving_pixels import SWAPS_PHASE, TrueSwap, moving_swap_scores
from vdsm.evaluation.pairs import Indices, Pairs
from vdsm.evaluation.progress import NO_PROGRESS, Progress
from vdsm.evaluation.reconstruction import reconstruction_scores, subsample
from vdsm.evaluation.renderer import RENDERER_PHASES, Renderer, renderer_scores
from vdsm.pixels import to_float

Donors = tuple[str, str]
"""Keys of the clips that gave the dynamics and the static code."""
Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Samples:
    """Some samples of a system, whose frames are read when they are needed."""

    donors: list[Donors]
    """Donors of each sample."""
    frames: Callable[[], Frames]
    """Returns uint8 [N, T, H, W, C]."""


class SampleScores(NamedTuple):
    """What is measured on samples."""

    scores: Scores
    controls: dict[str, Scores]
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


def check_samples(clips: LabelledClips, pairs: Pairs, parts: Mapping[str, Samples]) -> None:
    """Check that samples, by the name of their part, are those of the pairs.

    Raises:
        ValueError: samples are missing, duplicated, or do not belong to the pairs.
    """
    wanted = wanted_donors(clips, pairs)
    known = {donors for kind in wanted.values() for donors in kind}
    part_of: dict[Donors, str] = {}
    for name, part in parts.items():
        for donors in part.donors:
            sample = f"the sample of dynamics {donors[0]!r} and static {donors[1]!r}"
            if donors not in known:
                raise ValueError(f"{name}: {sample} is not in the pairs")
            if donors in part_of:
                raise ValueError(f"{name}: {sample} is duplicated; it is in {part_of[donors]} already")
            part_of[donors] = name
    for kind, every in wanted.items():
        unique = list(dict.fromkeys(every))
        missing = [donors for donors in unique if donors not in part_of]
        if missing and (kind == "swap" or len(missing) < len(unique)):
            first, second = missing[0]
            raise ValueError(
                f"{len(missing):,} of {len(unique):,} samples of the kind {kind} are missing, such as that of dynamics "
                f"{first!r} and static {second!r}"
            )


def sample_phases(*, renderer: bool, true_swap: bool = False) -> list[str]:
    """Return the phases of progress that `score_samples` starts, in order."""
    found = ["judging samples", "judging real test clips", "scoring the samples", "comparing reconstructions"]
    found += [SWAPS_PHASE] if true_swap else []
    return [*found, *CONTROL_PHASES, *(RENDERER_PHASES if renderer else ())]


def score_samples(
    judge: Judge, clips: LabelledClips, pairs: Pairs, parts: Mapping[str, Samples], length: int, seed: int,
    progress: Progress = NO_PROGRESS, *, renderer: Renderer | None = None, true_swap: TrueSwap | None = None,
    finished: FinishedWork = KEEP_NOTHING,
) -> SampleScores:  # fmt: skip
    """Return the judged scores of samples, with the controls. The codes of their model cannot be measured.

    Args:
        judge: trained on the training split.
        clips: the test split.
        pairs: the pairs of the samples.
        parts: the samples, in any order; the frames of one part are in memory at a time.
        length: frames of each sample.
        seed: seed of the intervals.
        progress: receives the phases listed by `sample_phases`.
        renderer: as in `measure`.
        true_swap: as in `measure`.
        finished: results of an interrupted call with the same arguments.

    Raises:
        ValueError: see `check_samples`.
    """
    check_samples(clips, pairs, parts)
    wanted, size = wanted_donors(clips, pairs), clips_per_batch(length)
    position = {donors: n for n, donors in enumerate(donors for part in parts.values() for donors in part.donors)}
    phases = sample_phases(renderer=False)
    verdicts = judge_blocks(judge, phases[0], _sample_blocks(parts, size), size, finished, progress)
    real_blocks = blocks("real", len(clips), lambda batch: stack(clips, range(batch.start, batch.stop), length), size)
    real = judge_blocks(judge, phases[1], real_blocks, size, finished, progress)
    judged = {
        kind: verdicts.select([position[pair] for pair in donors])
        for kind, donors in wanted.items()
        if kind != "reconstruction" and donors[0] in position
    }
    outputs = Outputs(judged["swap"], judged.get("prior_static"), judged.get("prior_dynamics"))
    reconstructed = np.unique(pairs.dynamics_of)
    if _own_donors(clips, reconstructed)[0] in position:
        own = verdicts.select([position[pair] for pair in _own_donors(clips, reconstructed)])
        outputs = replace(outputs, reconstruction=own, reconstructed=reconstructed)

    def score() -> dict[str, Scores]:
        progress.start(phases[2], outputs.frechet_resamples, unit="resamples")
        ceiling = judge_scores(clips, real, seed)
        return {"samples": ceiling | output_scores(clips, pairs, outputs, real, seed, progress)}

    def compare() -> dict[str, Scores]:
        compared = subsample(reconstructed)
        own = dict(zip(compared, select_frames(parts, _own_donors(clips, compared)), strict=True))

        def decode(batch: Indices) -> Tensor:
            return _floats(np.stack([own[index] for index in batch]))

        return {"samples": reconstruction_scores(clips, compared, length, decode, size, seed, progress)}

    def compare_swaps() -> dict[str, Scores]:
        assert true_swap is not None
        some = pairs.part(subsample(np.arange(len(pairs))))
        shown = np.stack(select_frames(parts, wanted_donors(clips, some)["swap"]))
        decoders = {"swap": lambda numbers: _floats(shown[numbers])}
        return {"samples": moving_swap_scores(clips, some, length, true_swap, decoders, size, seed, progress)}

    def draw() -> dict[str, Scores]:
        assert renderer is not None
        scores = renderer_scores(judge, clips, pairs, renderer, real, length, size, seed, progress)
        return {"renderer": scores}

    scores = scores_once("scores", phases[2:3], score, finished, progress)["samples"]
    if outputs.reconstruction is not None:
        scores |= scores_once("reconstructions", phases[3:4], compare, finished, progress)["samples"]
    else:
        progress.start(phases[3], 0, unit="clips")
    if true_swap is not None:
        scores |= scores_once("swaps", [SWAPS_PHASE], compare_swaps, finished, progress)["samples"]
    controls = scores_once(
        "controls", CONTROL_PHASES, lambda: control_scores(clips, pairs, real, seed, progress), finished, progress
    )
    if renderer is not None:
        controls |= scores_once("renderer", RENDERER_PHASES, draw, finished, progress)
    return SampleScores(scores, controls, summarise_swaps(clips, pairs, judged["swap"].values))


def select_frames(
    parts: Mapping[str, Samples], wanted: Sequence[Donors], progress: Progress = NO_PROGRESS
) -> list[Frames]:
    """Return the frames of some samples, uint8 [T, H, W, C] each; `progress` is advanced by one for each part."""
    found: dict[Donors, Frames] = {}
    chosen = set(wanted)
    for part in parts.values():
        rows = {donors: row for row, donors in enumerate(part.donors) if donors in chosen}
        if rows:
            frames = part.frames()
            found |= {donors: np.array(frames[row]) for donors, row in rows.items()}
        progress.advance()
    return [found[donors] for donors in wanted]


def _sample_blocks(parts: Mapping[str, Samples], size: int) -> list[Block]:
    read = functools.lru_cache(maxsize=1)(lambda name: parts[name].frames())
    found = []
    for number, (name, part) in enumerate(parts.items()):
        frames = functools.partial(lambda name, batch: _floats(read(name)[batch]), name)
        found += blocks(f"samples-{number}", len(part.donors), frames, size)
    return found


def _own_donors(clips: LabelledClips, indices: Indices) -> list[Donors]:
    """Return the donors of reconstructions."""
    return [(clips.keys[int(index)], clips.keys[int(index)]) for index in indices]


def _floats(frames: Frames) -> Tensor:
    """Convert uint8 [B, T, H, W, C] to f32 [B, T, C, H, W] in [0, 1]; the frames may be read-only."""
    return to_float(torch.from_numpy(np.array(frames)))

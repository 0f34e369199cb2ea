"""The worst swaps of an evaluation: what each should show, and what the judge saw instead."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.animation import Animation, display_fps, make_animation, median_fps
from pipeline.report.grids import real_clips
from pipeline.report.images import Frames, mosaic
from vdsm.evaluation.clips import ACTION, LabelledClips
from vdsm.evaluation.measurement import Swapped

MAX_WRONG_SWAPS = 12
"""Maximum number of wrong swaps that a report shows."""


@dataclass(frozen=True)
class WrongFactor:
    """A factor that the judge sees differently from what was requested."""

    name: str
    requested: str
    judged: str


@dataclass(frozen=True)
class WrongSwap:
    """A swap with at least one wrong factor."""

    animation: Animation
    """A, B and the output side by side."""
    factors: list[WrongFactor]


def wrong_swaps(clips: LabelledClips, swapped: Swapped, outputs: Sequence[Frames], length: int) -> list[WrongSwap]:
    """Return the swaps with the most wrong factors.

    Args:
        clips: the test split.
        swapped: its pairs and the judge's verdicts.
        outputs: the outputs of the first pairs of `swapped.wrong`: uint8 [T, H, W, C] each.
        length: number of frames shown.
    """
    cell, fps = clips.frames(0).shape[2], display_fps(median_fps(clips))
    found = []
    for position, output in zip(swapped.wrong, outputs):
        a, b = int(swapped.pairs.dynamics_of[position]), int(swapped.pairs.static_of[position])
        factors = _wrong_factors(clips, swapped, int(position), a, b)
        verdict = ", ".join(f"{factor.name} {factor.judged} instead of {factor.requested}" for factor in factors)
        frames = mosaic([[*real_clips(clips, [a, b], length), output]])
        found.append(WrongSwap(make_animation(frames, fps, f"A, B and their swap; judged: {verdict}", cell), factors))
    return found


def _wrong_factors(clips: LabelledClips, swapped: Swapped, position: int, a: int, b: int) -> list[WrongFactor]:
    """Return the wrong factors of the pair at a position, whose clips are A and B."""
    factors = []
    for name, judged in swapped.judged.items():
        requested = int(clips.labels[name][a if name == ACTION else b])
        if int(judged[position]) != requested:
            values = clips.vocabulary[name]
            factors.append(WrongFactor(name, values[requested], values[int(judged[position])]))
    return factors

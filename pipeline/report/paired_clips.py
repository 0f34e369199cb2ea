"""The pairs of clips that stage 1 was trained on because they look alike, as the report shows them."""

from dataclasses import dataclass

from pipeline.recipe import Recipe
from pipeline.report.animation import Animation, animate_grid, display_fps, median_fps
from pipeline.runs.pairs import run_pairs
from preprocessing.appearance.agreement import agreement, describe
from preprocessing.dataset.reader import ClipDataset
from preprocessing.spread import evenly_spread

COLUMNS = 10
"""Pairs shown."""


@dataclass(frozen=True)
class PairedClips:
    """Some of the pairs, and what is known about all of them."""

    animation: Animation
    """Pairs in columns: a clip above, its partner below."""
    descriptor: str
    lines: list[str]


def draw_paired_clips(run: str, recipe: Recipe, train: ClipDataset) -> PairedClips | None:
    """Return the pairs of a run; None if it is not paired by appearance, or has no pair.

    Args:
        run: URL of the run.
        recipe: its recipe.
        train: the training split of its data.
    """
    pairs = run_pairs(recipe.training, train, run)
    if pairs is None or not len(pairs.partners):
        return None
    chosen = pairs.once[evenly_spread(len(pairs.once), COLUMNS)]
    first, second = pairs.firsts[chosen], pairs.partners[chosen]
    length = min(train.clip_frames[clip] for clip in [*first, *second])
    rows = [[train.frames(int(clip))[:length] for clip in clips] for clips in (first, second)]
    return PairedClips(
        animate_grid(
            rows, display_fps(median_fps(train)), "pairs of clips that look alike, in columns", rows[0][0].shape[2]
        ),
        recipe.training.appearance.descriptor,
        describe(pairs, agreement(pairs, train.identities, train.labels)),
    )

"""Kinds of data, and for each the recipe that is known to work best for it: everything here may be changed freely.

A recommendation starts from the recipe in configs/ that is named here, and changes what the dataset and the machine
decide: sizes of frames, experts, pairs, lengths, steps, workers. Learning rates, losses and widths of the networks stay
those of that recipe.
"""

from dataclasses import dataclass
from typing import NamedTuple

from pipeline.recommendation.survey import Survey

FLAT = 0.5
"""Frames are drawn if more pixels than this share equal their neighbour (the built-in figures 0.89, Sprites 0.83,
pendulums 0.98, Moving MNIST 0.95; videos of people 0.06)."""


class Experts(NamedTuple):
    """A size of the static code."""

    max_looks: float
    """Chosen for up to so many distinct looks."""
    num_experts: int
    static_groups: int
    shown: str
    """Where it was shown to work."""


EXPERTS = (
    Experts(400, 48, 12, "240 built-in figures"),
    Experts(float("inf"), 60, 12, "1,000 Sprites"),
)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of data."""

    recipe: str
    """File in configs/ whose settings are the starting point; its steps are the fewest that are recommended."""
    seen: str
    """How it is recognised."""
    epochs: float
    """Times that stage 1 sees each clip, from the trainings that worked."""
    max_steps: tuple[int, int] = (10_000, 4_000)
    """Most steps of each stage."""
    experts: tuple[Experts, ...] = EXPERTS
    few_clips: int
    """Fewer training clips than this are worth a warning."""
    few_looks: int
    """Fewer distinct looks than this are worth a warning."""
    shown: str
    """What the settings were shown to work on."""


KINDS = {
    "drawn": Kind(
        recipe="quickstart.yaml",
        seen="drawn, in colour",
        epochs=18,
        few_clips=1000,
        few_looks=150,
        shown="1,440 clips of 240 figures and 9,000 of 1,000 Sprites",
    ),
    "strokes": Kind(
        recipe="moving-mnist.yaml",
        seen="drawn, in grey",
        epochs=4,
        few_clips=3000,
        few_looks=1000,
        shown="3,000 to 60,000 clips of handwriting",
    ),
    "filmed": Kind(
        recipe="videos.yaml",
        seen="filmed: neighbouring pixels differ",
        epochs=18,
        few_clips=300,
        few_looks=30,
        shown="the videos of docs/your-videos.md",
    ),
}

LONGEST = 60
"""Most frames of a clip that stage 2 was shown to learn from."""
DECODED = (16, 4)
"""Of clips with more frames than the first number, a step of stage 2 decodes as many as the second."""
LONG_VIDEO_S = 20.0
"""A video that covers so many seconds is taken to show several things."""
FEW_PAIRED = 0.5
"""Pairs by appearance are doubtful if a smaller share of clips looks like one of another video."""
FAR = 0.5
"""They are doubtful too if they are farther apart than this share of the distance of two clips at random."""
TOO_FEW_TO_SPARE = 30
"""With fewer distinct looks, validation takes no whole look from the training: with a tenth held out of recordings of
five people, one of them was gone, and a quarter of the actions came out wrong (docs/your-videos.md)."""
MOST_WORKERS = 8
MOST_THREADS = 4
MEMORY_SHARE = 0.7
"""Share of the memory that the workers may fill by the plan's estimate, which knows nothing of Ray and of shards."""


def kind_of(found: Survey) -> Kind:
    """Return the kind of a dataset."""
    if found.pixels.flat_share < FLAT:
        return KINDS["filmed"]
    return KINDS["strokes" if found.is_grey else "drawn"]

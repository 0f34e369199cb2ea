"""The clips that score trials: clips of the training split that no trial trains on.

The test split is never read, so results on it stay unbiased by the search.
"""

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cluster.errors import UserError
from pipeline.runs.pairs import run_pairs
from pipeline.training.draws_of_keys import held_out
from pipeline.training.job import Job, clip_table
from vdsm.evaluation.clips import ACTION, LabelledClips

if TYPE_CHECKING:
    from pipeline.recipe import Recipe
    from preprocessing.dataset.reader import ClipDataset


class ClipSubset:
    """Some clips of a split, usable as a split (a `LabelledClips`)."""

    def __init__(self, clips: LabelledClips, indices: NDArray[np.int64]) -> None:
        self._clips, self._indices = clips, indices
        self.keys = [clips.keys[index] for index in indices]
        self.identities = [clips.identities[index] for index in indices]
        self.labels = {name: values[indices] for name, values in clips.labels.items()}
        self.vocabulary = clips.vocabulary
        self.clip_frames = np.asarray(clips.clip_frames)[indices]

    def __len__(self) -> int:
        return len(self._indices)

    def frames(self, index: int) -> NDArray[np.uint8]:
        """Return the frames of one clip: uint8 [T, H, W, C]."""
        return self._clips.frames(int(self._indices[index]))


class ValidationSplit(NamedTuple):
    """The training split of a dataset, divided as a training run divides it."""

    train: ClipSubset
    """Clips that every trial trains on."""
    validation: ClipSubset
    """Clips that it holds out: of whole identities, or of whole groups that were found without labels."""


def split_as_training(clips: "ClipDataset", recipe: "Recipe", run: str | None = None) -> ValidationSplit:
    """Divide the training split as a training run of `recipe` does.

    Clips shorter than `training.stage2.clip_frames` are left out of both parts.

    Args:
        clips: the training split.
        recipe: settings of the training.
        run: the run whose pairs are used, if it was paired by appearance.
    """
    pairs = run_pairs(recipe.training, clips, run)
    job = Job(model=recipe.model, training=recipe.training, seed=recipe.seed, clips=clips, pairs=pairs)
    groups = clip_table(job).validation_groups
    kept_out = held_out(groups, recipe.seed, recipe.training.validation_fraction)
    held = np.array([group in kept_out for group in groups])
    enough = np.asarray(clips.clip_frames) >= recipe.training.stage2.clip_frames
    return ValidationSplit(
        ClipSubset(clips, np.flatnonzero(~held & enough)), ClipSubset(clips, np.flatnonzero(held & enough))
    )


def check_scorable(clips: "ClipDataset", recipe: "Recipe") -> None:
    """Check that a trial of `recipe` can be scored: swaps need clips of two validation identities.

    Raises:
        UserError: there are fewer; the message names the setting to change.
    """
    held = len(set(split_as_training(clips, recipe).validation.identities))
    if held >= 2:
        return
    identities, training = len(set(clips.identities)), recipe.training
    enough = math.ceil(200 / max(1, identities)) / 100
    remedy = f"raise it to {enough} or more" if identities > 2 else "shard at least 3 identities"
    raise UserError(
        f"training.validation_fraction {training.validation_fraction} holds out {held} of the {identities} identities "
        f"of the training split with clips of at least {training.stage2.clip_frames} frames, and a trial's score "
        f"needs 2; {remedy}"
    )


def can_judge_swaps(clips: LabelledClips) -> bool:
    """Return whether the labels suffice to judge swaps: two or more actions, and a static attribute with two values."""
    varied = [name for name, values in clips.vocabulary.items() if len(values) > 1]
    return ACTION in varied and len(varied) > 1

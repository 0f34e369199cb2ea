"""The clips that score trials: identities of the training split that no trial trains on.

The test split is never read, so results on it stay unbiased by the search.
"""

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cluster.errors import UserError
from pipeline.training.order import held_out
from vdsm.evaluation.clips import ACTION, LabelledClips

if TYPE_CHECKING:
    from pipeline.recipe import Recipe


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


class IdentitySplit(NamedTuple):
    """The training split of a dataset, divided by identity."""

    train: ClipSubset
    """Clips that every trial trains on."""
    validation: ClipSubset
    """Clips of the held-out identities."""


def split_by_identity(clips: LabelledClips, recipe: "Recipe") -> IdentitySplit:
    """Divide the training split as a training run of `recipe` does.

    Clips shorter than `training.stage2.clip_frames` are left out of both parts.
    """
    kept_out = held_out(clips.identities, recipe.seed, recipe.training.validation_fraction)
    held = np.array([identity in kept_out for identity in clips.identities])
    enough = np.asarray(clips.clip_frames) >= recipe.training.stage2.clip_frames
    return IdentitySplit(
        ClipSubset(clips, np.flatnonzero(~held & enough)), ClipSubset(clips, np.flatnonzero(held & enough))
    )


def check_scorable(clips: LabelledClips, recipe: "Recipe") -> None:
    """Check that a trial of `recipe` can be scored: swaps need clips of two validation identities.

    Raises:
        UserError: there are fewer; the message names the setting to change.
    """
    held = len(set(split_by_identity(clips, recipe).validation.identities))
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

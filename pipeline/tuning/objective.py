"""What ranks the trials: swaps between identities that no trial trained on, scored between 0 (chance) and 1.

The validation identities come out of the training split, so that no figure of the test split is ever looked at.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.training.order import held_out
from vdsm.evaluation.clips import ACTION, LabelledClips, static_attributes
from vdsm.evaluation.cycle import donor_rank
from vdsm.evaluation.judge import Judge
from vdsm.evaluation.model import SwapModel, encode_clips
from vdsm.evaluation.outputs import SwapDecoder, judge_pairs, of_pairs
from vdsm.evaluation.pairs import Pairs, chances, draw_pairs
from vdsm.evaluation.progress import NO_PROGRESS
from vdsm.evaluation.swap_scores import identities

if TYPE_CHECKING:
    from pipeline.recipe import Recipe

BATCH_CLIPS = 32
"""Clips decoded at once."""


class ClipSubset:
    """Some clips of a split, as a split of its own."""

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
        """Frames of one clip: uint8 [T, H, W, C]."""
        return self._clips.frames(int(self._indices[index]))


class Split(NamedTuple):
    """The training split, divided as the training divides it."""

    train: ClipSubset
    validation: ClipSubset


def divide(clips: LabelledClips, recipe: "Recipe") -> Split:
    """The clips that a run of `recipe` trains on, and those of its validation identities that are long enough."""
    kept_out = held_out(clips.identities, recipe.seed, recipe.training.validation_fraction)
    held = np.array([identity in kept_out for identity in clips.identities])
    enough = np.asarray(clips.clip_frames) >= recipe.training.stage2.clip_frames
    return Split(ClipSubset(clips, np.flatnonzero(~held & enough)), ClipSubset(clips, np.flatnonzero(held & enough)))


def is_labelled(clips: LabelledClips) -> bool:
    """Whether swaps can be judged: there are actions to tell apart, and static attributes."""
    telling = [name for name, names in clips.vocabulary.items() if len(names) > 1]
    return ACTION in telling and len(telling) > 1


@torch.inference_mode()
def disentanglement(
    model: SwapModel, clips: LabelledClips, judge: Judge | None, *, length: int, pairs: int, seed: int, sequence: bool
) -> dict[str, float]:
    """The score `disentanglement` of a model on clips that it was not trained on, and what it is made of.

    With a judge: `action`, the accuracy of the judged action under swap, and `static`, the mean accuracy over the
    attributes, each as (accuracy - chance) / (1 - chance). Without: the same of the ranks of the right donors among
    others, when the swap is encoded again. The score is their harmonic mean, which is 0 if either is at chance: a
    model that ignores one of its codes has no disentanglement.

    Args:
        clips: validation clips of two or more identities.
        length: frames of each clip.
        pairs: pairs of clips that are swapped, drawn by `seed`.
        sequence: whether the dynamics code is trained; else poses are swapped.
    """
    drawn = draw_pairs(clips, pairs, seed)
    decoder = SwapDecoder(model, encode_clips(model, clips, length, BATCH_CLIPS), length, BATCH_CLIPS)
    swap = decoder.swap if sequence else decoder.pose_swap
    found = _judged(judge, clips, drawn, decoder, swap, seed) if judge else _cycle(clips, drawn, decoder, swap, seed)
    return found | {"disentanglement": combined(found["action"], found["static"])}


def combined(action: float, static: float) -> float:
    """The harmonic mean of two scores between 0 and 1: 0 if either is."""
    return 2 * action * static / (action + static) if action > 0 and static > 0 else 0.0


def above_chance(accuracy: float, chance: float) -> float:
    """0 at chance or below, 1 if everything is right."""
    return max(0.0, (accuracy - chance) / (1 - chance)) if chance < 1 else 0.0


def _judged(
    judge: Judge, clips: LabelledClips, pairs: Pairs, decoder: SwapDecoder, swap: Any, seed: int
) -> dict[str, float]:
    judged = judge_pairs(judge, pairs, of_pairs(swap, pairs), BATCH_CLIPS, "judging swaps", NO_PROGRESS).values
    chance = chances(clips, pairs)
    correct = {
        name: judged[name] == clips.labels[name][pairs.static_of] for name in static_attributes(clips) if name in judged
    }
    action = np.mean(judged[ACTION] == clips.labels[ACTION][pairs.dynamics_of])
    static = [above_chance(float(right.mean()), chance[name]) for name, right in correct.items()]
    joint = np.all(list(correct.values()), axis=0).mean()
    return {
        "action": above_chance(float(action), chance[ACTION]),
        "static": float(np.mean(static)),
        "joint": float(joint),
    }


def _cycle(clips: LabelledClips, pairs: Pairs, decoder: SwapDecoder, swap: Any, seed: int) -> dict[str, float]:
    static, dynamics = [], []
    for batch in _batches(pairs):
        codes = decoder.model.encode(swap(pairs.dynamics_of[batch], pairs.static_of[batch]))
        static.append(codes.static)
        dynamics.append(codes.dynamics)
    who = identities(clips)
    ranks = {
        "action": donor_rank(torch.cat(dynamics), decoder.codes.dynamics, pairs.dynamics_of, who, seed),
        "static": donor_rank(torch.cat(static), decoder.codes.static, pairs.static_of, who, seed),
    }
    return {name: above_chance(float(rank.mean()), 0.5) for name, rank in ranks.items()}


def _batches(pairs: Pairs) -> list[slice]:
    return [slice(start, start + BATCH_CLIPS) for start in range(0, len(pairs), BATCH_CLIPS)]


def final_elbo(records: Sequence[dict[str, Any]]) -> float:
    """The last un-annealed validation loss among the records of a run: the negative ELBO in nats per pixel value.

    Raises ValueError if there is none: the run never measured it.
    """
    for record in reversed(records):
        if record.get("kind") == "validation":
            return -float(record["elbo"])
    raise ValueError("the run has no validation among its records")

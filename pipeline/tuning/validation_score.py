"""The scores that rank trials, measured on validation identities; 0 is chance and 1 is perfect."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vdsm.evaluation.clips import ACTION, LabelledClips, static_attributes
from vdsm.evaluation.cycle import ReencodedSwaps
from vdsm.evaluation.identities import identity_indices
from vdsm.evaluation.judge import Judge
from vdsm.evaluation.model import SwapModel, encode_clips
from vdsm.evaluation.outputs import SwapDecoder, decode_batches, judge_pairs, slice_decoder
from vdsm.evaluation.pairs import Indices, Pairs, chances, draw_pairs
from vdsm.evaluation.progress import NO_PROGRESS

BATCH_CLIPS = 32
"""Clips decoded at once."""

Swap = Callable[[Indices, Indices], Tensor]
"""Decode the dynamics of some clips with the static codes of others: indices [B], [B] -> [B, T, C, H, W]."""


@torch.inference_mode()
def disentanglement_scores(
    model: SwapModel, clips: LabelledClips, judge: Judge | None, *, length: int, pairs: int, seed: int, sequence: bool
) -> dict[str, float]:
    """Return the score `disentanglement` of a model and its parts `action` and `static`, each between 0 and 1.

    With a judge, `action` is the accuracy of the judged action under swap and `static` the mean accuracy over the
    static attributes, each as (accuracy - chance) / (1 - chance); `joint` is the share of swaps with every static
    attribute right. Without a judge, both are the rank of the true donor among other clips when the swap is
    re-encoded. `disentanglement` is their harmonic mean, which is 0 if either is at chance: a model that ignores one of
    its codes scores 0.

    Args:
        clips: validation clips of two or more identities.
        length: frames of each clip.
        pairs: number of clip pairs whose codes are swapped, drawn by `seed`.
        sequence: whether the dynamics code is trained; if not, poses are swapped.
    """
    drawn = draw_pairs(clips, pairs, seed)
    decoder = SwapDecoder(model, encode_clips(model, clips, length, BATCH_CLIPS), length, BATCH_CLIPS)
    swap = decoder.swap if sequence else decoder.pose_swap
    if judge is not None:
        scores = _judged_scores(judge, clips, drawn, swap)
    else:
        scores = _cycle_scores(clips, drawn, decoder, swap, seed)
    return scores | {"disentanglement": harmonic_mean(scores["action"], scores["static"])}


def harmonic_mean(first: float, second: float) -> float:
    """Return the harmonic mean of two scores between 0 and 1; 0 if either is 0."""
    return 2 * first * second / (first + second) if first > 0 and second > 0 else 0.0


def above_chance(accuracy: float, chance: float) -> float:
    """Scale an accuracy so that chance and below give 0, and a perfect result gives 1."""
    return max(0.0, (accuracy - chance) / (1 - chance)) if chance < 1 else 0.0


def _judged_scores(judge: Judge, clips: LabelledClips, pairs: Pairs, swap: Swap) -> dict[str, float]:
    judged = judge_pairs(judge, pairs, slice_decoder(swap, pairs), BATCH_CLIPS, "judging swaps", NO_PROGRESS).values
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


def _cycle_scores(clips: LabelledClips, pairs: Pairs, decoder: SwapDecoder, swap: Swap, seed: int) -> dict[str, float]:
    reencoded = ReencodedSwaps(decoder.model)
    decode_batches(len(pairs), slice_decoder(swap, pairs), BATCH_CLIPS, "re-encoding swaps", NO_PROGRESS, reencoded)
    found = reencoded.scores(pairs, decoder.codes, identity_indices(clips.identities), seed)
    parts = {"action": found["cycle.dynamics"], "static": found["cycle.static"]}
    return {name: above_chance(score.value, 0.5) for name, score in parts.items()}


def final_elbo(records: Sequence[dict[str, Any]]) -> float:
    """Return the last un-annealed validation loss of a run: its negative ELBO in nats per pixel value.

    Args:
        records: the lines of the run's metrics.jsonl.

    Raises:
        ValueError: no record is a validation.
    """
    for record in reversed(records):
        if record.get("kind") == "validation":
            return -float(record["elbo"])
    raise ValueError("the run's metrics.jsonl has no validation record")

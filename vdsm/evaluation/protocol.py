"""The protocol: everything that is measured of one model on the test clips, with its controls."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vdsm.evaluation.clips import ACTION, LabelledClips
from vdsm.evaluation.controls import control_scores
from vdsm.evaluation.cycle import donor_rank
from vdsm.evaluation.judge import Judge, Progress, Verdicts, judge_clips, silent
from vdsm.evaluation.model import SwapModel, encode_clips
from vdsm.evaluation.outputs import Decoder, fidelities, judge_pairs, reconstruction_verdicts
from vdsm.evaluation.pairs import Pairs, chances, draw_pairs
from vdsm.evaluation.scores import Score, entropy_scores, mean_score
from vdsm.evaluation.swap_scores import (
    action_scores,
    confusion,
    identities,
    leakage_scores,
    static_scores,
    swap_scores,
)

FIDELITY_CLIPS = 160
"""Most clips whose reconstructions are compared value by value; SSIM in float64 takes longer than all the rest."""


@dataclass(frozen=True, kw_only=True)
class ProtocolConfig:
    """How much is measured."""

    clip_frames: int = 8
    """Frames of each clip."""
    pairs: int = 1000
    """Pairs of test clips."""
    batch_clips: int = 32
    """Clips in memory at once."""
    seed: int = 0
    """Seed of the pairs, the prior samples and the intervals."""
    sequence_stage: bool = True
    """Whether the model has a trained dynamics code; without it only poses are swapped."""


@dataclass(frozen=True)
class Measurement:
    """What the protocol found."""

    scores: dict[str, Score]
    """By dotted name, such as `swap.static.hat.accuracy`."""
    controls: dict[str, dict[str, Score]]
    """Per control, its scores as `action.accuracy`, `static.*`, `leakage.*`."""
    confusion: list[list[int]]
    """Actions under swap: asked for (row), judged (column)."""
    pairs: Pairs
    judged: Mapping[str, NDArray[np.int64]]
    """Judged value of each factor under swap: [P]."""
    wrong: NDArray[np.int64]
    """Positions of the pairs whose swap shows a wrong factor, those with the most wrong factors first."""
    decoder: Decoder
    """The model with the codes of all test clips."""


@torch.inference_mode()
def measure(
    model: SwapModel, clips: LabelledClips, judge: Judge, config: ProtocolConfig, progress: Progress = silent
) -> Measurement:
    """Measure a model on the clips of the test split."""
    seed, length = config.seed, config.clip_frames
    pairs = draw_pairs(clips, config.pairs, seed)
    real = judge_clips(judge, clips, length, progress=progress)
    decoder = Decoder(
        model, encode_clips(model, clips, length, config.batch_clips, progress), length, config.batch_clips
    )
    scores = judge_scores(clips, real, seed)
    pose_swapped = judge_pairs(
        judge, pairs, lambda batch: decoder.pose_swap(pairs.dynamics_of[batch], pairs.static_of[batch]),
        config.batch_clips, "swapping poses", progress,
    )  # fmt: skip
    scores |= _named("pose_swap", swap_scores(clips, pairs, pose_swapped.values, seed))
    swapped = pose_swapped
    if config.sequence_stage:
        swapped, cycle = _swaps(judge, clips, pairs, decoder, seed, progress)
        scores |= _named("swap", swap_scores(clips, pairs, swapped.values, seed)) | cycle
        scores |= prior_scores(judge, clips, pairs, decoder, seed, progress)
    scores |= reconstruction_scores(judge, clips, np.unique(pairs.dynamics_of), decoder, real, seed, progress)
    if on_simplex(decoder.codes.static):
        scores["experts.in_use"] = experts_in_use(decoder.codes.static, identities(clips), seed)
    return Measurement(
        scores, control_scores(clips, pairs, real, seed), confusion(clips, pairs, swapped.values),
        pairs, swapped.values, worst(clips, pairs, swapped.values), decoder,
    )  # fmt: skip


def judge_scores(clips: LabelledClips, real: Verdicts, seed: int) -> dict[str, Score]:
    """`judge.<factor>.accuracy` on the real test clips: the ceiling of everything else."""
    who = identities(clips)
    found = {}
    for name, values in real.values.items():
        frequencies = np.bincount(clips.labels[name], minlength=len(clips.vocabulary[name])) / len(clips)
        chance = float(frequencies @ frequencies)
        found[f"judge.{name}.accuracy"] = mean_score(values == clips.labels[name], who, chance, seed)
    return found


def prior_scores(
    judge: Judge, clips: LabelledClips, pairs: Pairs, decoder: Decoder, seed: int, progress: Progress
) -> dict[str, Score]:
    """`prior.static.*`: the static code drawn from the prior, A's action kept, with the field's IS, H(y|x), H(y);
    `prior.dynamics.*`: the dynamics code drawn from the prior, B's identity kept."""
    generator = torch.Generator().manual_seed(seed)
    static = decoder.model.sample_static(len(pairs), generator)
    dynamics = decoder.model.sample_dynamics(len(pairs), generator)
    kept_action = judge_pairs(
        judge, pairs, lambda batch: decoder.with_static(pairs.dynamics_of[batch], static[batch]),
        decoder.batch_clips, "sampling identities", progress,
    )  # fmt: skip
    kept_identity = judge_pairs(
        judge, pairs, lambda batch: decoder.with_dynamics(dynamics[batch], pairs.static_of[batch]),
        decoder.batch_clips, "sampling actions", progress,
    )  # fmt: skip
    chance = chances(clips, pairs)
    attributes = {name: value for name, value in kept_action.values.items() if name != ACTION}
    action = {ACTION: kept_identity.values[ACTION]}
    scores = _named("prior.static", action_scores(clips, pairs, kept_action.values, chance, seed))
    scores |= _named("prior.static", leakage_scores(clips, pairs, attributes, chance, seed))
    scores |= _named("prior.dynamics", static_scores(clips, pairs, kept_identity.values, chance, seed))
    scores |= _named("prior.dynamics", leakage_scores(clips, pairs, action, chance, seed))
    return scores | entropy_scores(kept_action.action, identities(clips)[pairs.dynamics_of], seed)


def reconstruction_scores(
    judge: Judge,
    clips: LabelledClips,
    indices: NDArray[np.int64],
    decoder: Decoder,
    real: Verdicts,
    seed: int,
    progress: Progress,
) -> dict[str, Score]:
    """`reconstruction.{mse,psnr,ssim}`, `still.*` (the clip's mean frame repeated, the best that a model without
    motion can do) and `consistency.<factor>`: the judge says the same of a clip and of its reconstruction."""
    verdicts = reconstruction_verdicts(judge, decoder, indices, progress)
    some = indices[:: -(-len(indices) // FIDELITY_CLIPS)]
    measured, still = fidelities(decoder, clips, some, progress)
    who = identities(clips)
    scores = {}
    for name in ("mse", "psnr", "ssim"):
        scores[f"reconstruction.{name}"] = mean_score(getattr(measured, name), who[some], None, seed)
        scores[f"still.{name}"] = mean_score(getattr(still, name), who[some], None, seed)
    for name, values in verdicts.values.items():
        frequencies = np.bincount(real.values[name][indices], minlength=len(clips.vocabulary[name])) / len(indices)
        same = values == real.values[name][indices]
        scores[f"consistency.{name}"] = mean_score(same, who[indices], float(frequencies @ frequencies), seed)
    return scores


def on_simplex(static: Tensor) -> bool:
    """Whether static codes [N, K] are weights of experts: points of one simplex, or of several side by side."""
    sums = static.sum(1)
    return bool((static >= 0).all() and sums.mean() > 0.5 and (sums - sums.mean()).abs().max() < 1e-3)


def experts_in_use(static: Tensor, who: NDArray[np.int64], seed: int) -> Score:
    """exp of the entropy of the mean static code, a number between 1 and K: how many experts share the work."""
    weights = static.double().numpy()
    return entropy_scores(weights / weights.sum(1, keepdims=True), who, seed)["h_y"].exponential()


def worst(clips: LabelledClips, pairs: Pairs, judged: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    """Positions of the pairs with a wrong factor, most wrong factors first, then in the order of the pairs."""
    wrong = np.zeros(len(pairs), dtype=np.int64)
    for name, values in judged.items():
        wanted = pairs.dynamics_of if name == ACTION else pairs.static_of
        wrong += values != clips.labels[name][wanted]
    order = np.argsort(-wrong, kind="stable")
    return order[: int((wrong > 0).sum())].astype(np.int64)


def _swaps(
    judge: Judge, clips: LabelledClips, pairs: Pairs, decoder: Decoder, seed: int, progress: Progress
) -> tuple[Verdicts, dict[str, Score]]:
    """Verdicts on the swaps through the dynamics code, and the cycle scores of encoding them again."""
    static, dynamics = [], []

    def encode_again(batch: slice, frames: Tensor) -> None:
        codes = decoder.model.encode(frames)
        static.append(codes.static)
        dynamics.append(codes.dynamics)

    swapped = judge_pairs(
        judge, pairs, lambda batch: decoder.swap(pairs.dynamics_of[batch], pairs.static_of[batch]),
        decoder.batch_clips, "swapping dynamics codes", progress, encode_again,
    )  # fmt: skip
    who = identities(clips)
    ranks = {
        "cycle.static": (
            donor_rank(torch.cat(static), decoder.codes.static, pairs.static_of, who, seed),
            pairs.static_of,
        ),
        "cycle.dynamics": (
            donor_rank(torch.cat(dynamics), decoder.codes.dynamics, pairs.dynamics_of, who, seed),
            pairs.dynamics_of,
        ),
    }
    return swapped, {name: mean_score(rank, who[donors], 0.5, seed) for name, (rank, donors) in ranks.items()}


def _named(prefix: str, scores: Mapping[str, Score]) -> dict[str, Score]:
    return {f"{prefix}.{name}": score for name, score in scores.items()}

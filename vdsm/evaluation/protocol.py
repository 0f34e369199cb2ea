"""The protocol: everything that is measured of one model on the test clips, with its controls."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vdsm.evaluation.clips import ACTION, LabelledClips
from vdsm.evaluation.controls import control_scores
from vdsm.evaluation.cycle import donor_rank
from vdsm.evaluation.judge import Judge, Progress, Verdicts, judge_clips, silent
from vdsm.evaluation.measurement import Measurement, latents_of, swapped_of
from vdsm.evaluation.model import SwapModel, encode_clips
from vdsm.evaluation.outputs import Decoder, fidelities, judge_pairs, reconstruction_verdicts
from vdsm.evaluation.pairs import Pairs, chances, draw_pairs
from vdsm.evaluation.scores import Score, entropy_scores, mean_score
from vdsm.evaluation.swap_scores import (
    action_scores,
    identities,
    leakage_scores,
    named,
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
    by_pose = swap_scores(clips, pairs, pose_swapped.values, seed)
    scores |= {f"pose_{name}": score for name, score in by_pose.items()}
    swapped = pose_swapped
    if config.sequence_stage:
        swapped, cycle = _swaps(judge, clips, pairs, decoder, seed, progress)
        scores |= swap_scores(clips, pairs, swapped.values, seed) | cycle
        scores |= prior_scores(judge, clips, pairs, decoder, seed, progress)
    scores |= reconstruction_scores(judge, clips, np.unique(pairs.dynamics_of), decoder, real, seed, progress)
    if on_simplex(decoder.codes.static):
        scores["experts.in_use"] = experts_in_use(decoder.codes.static, identities(clips), seed)
    return Measurement(
        scores,
        control_scores(clips, pairs, real, seed),
        swapped_of(clips, pairs, swapped.values),
        latents_of(clips, decoder.codes),
        decoder,
        expert_use(decoder.codes.static),
    )


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
    scores = named("prior.static", action_scores(clips, pairs, kept_action.values, chance, seed))
    scores |= named("prior.static", leakage_scores(clips, pairs, attributes, chance, seed))
    scores |= named("prior.dynamics", static_scores(clips, pairs, kept_identity.values, chance, seed))
    scores |= named("prior.dynamics", leakage_scores(clips, pairs, action, chance, seed))
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


def expert_use(static: Tensor) -> list[float]:
    """Mean weight of each expert in static codes [N, K], 1 in all; empty where codes are no weights."""
    if not on_simplex(static):
        return []
    mean = static.double().mean(0)
    return [float(share) for share in mean / mean.sum()]


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

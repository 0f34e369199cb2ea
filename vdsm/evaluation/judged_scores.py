"""Every metric that follows from the judge's verdicts on outputs: of our model, the renderer, or anyone's model."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vdsm.evaluation import frechet
from vdsm.evaluation.clips import ACTION, LabelledClips
from vdsm.evaluation.identities import identity_indices
from vdsm.evaluation.judge import Judge, Verdicts
from vdsm.evaluation.pairs import Pairs, chances
from vdsm.evaluation.progress import NO_PROGRESS, Progress
from vdsm.evaluation.scores import Score, entropy_scores, mean_score
from vdsm.evaluation.swap_scores import action_scores, leakage_scores, prefixed, static_scores, swap_scores

Combinations = frozenset[tuple[int, ...]]
"""Combinations of the values of all attributes, in the order of the judge's factors."""


def combinations(clips: LabelledClips, judge: Judge) -> Combinations:
    """Return the combinations of values of the judged attributes in a split."""
    names = [name for name in judge.values if name != ACTION]
    return frozenset(zip(*(np.asarray(clips.labels[name]).tolist() for name in names), strict=True))


@dataclass(frozen=True)
class Outputs:
    """Verdicts on a system's outputs for each pair of clips A (dynamics) and B (static); None for kinds it lacks."""

    swap: Verdicts | None = None
    """A's action by B's identity."""
    prior_static: Verdicts | None = None
    """A's action by an identity drawn from the prior."""
    prior_dynamics: Verdicts | None = None
    """A motion drawn from the prior, by B's identity."""
    reconstruction: Verdicts | None = None
    """Clips decoded from their own codes."""
    reconstructed: NDArray[np.int64] | None = None
    """Indices of the reconstructed clips in the test split."""

    @property
    def frechet_resamples(self) -> int:
        """Units of progress by which `output_scores` advances."""
        kinds = (self.swap, self.prior_static, self.prior_dynamics, self.reconstruction)
        return frechet.RESAMPLES * sum(kind is not None for kind in kinds)


def output_scores(
    clips: LabelledClips, pairs: Pairs, outputs: Outputs, real: Verdicts, seed: int, progress: Progress = NO_PROGRESS,
    seen: Combinations | None = None,
) -> dict[str, Score]:  # fmt: skip
    """Return `swap.*`, `leakage.*`, `prior.*`, `is`, `h_y_given_x`, `h_y`, `consistency.*` and `frechet.judge.*`.

    Args:
        clips: the test split.
        pairs: the pairs of the outputs.
        outputs: verdicts on the outputs.
        real: verdicts on all real test clips.
        seed: seed of the intervals.
        progress: advanced by `outputs.frechet_resamples`.
        seen: combinations of the attributes in the training split, if they are known.
    """
    scores: dict[str, Score] = {}
    identities = identity_indices(clips.identities)
    compared = {}
    if outputs.swap is not None:
        scores |= swap_scores(clips, pairs, outputs.swap.values, seed)
        compared["swap"] = (outputs.swap, identities[pairs.static_of])
    if outputs.prior_static is not None:
        scores |= prior_static_scores(clips, pairs, outputs.prior_static, seed, seen)
        compared["prior_static"] = (outputs.prior_static, identities[pairs.dynamics_of])
    if outputs.prior_dynamics is not None:
        scores |= prior_dynamics_scores(clips, pairs, outputs.prior_dynamics, seed)
        compared["prior_dynamics"] = (outputs.prior_dynamics, identities[pairs.static_of])
    if outputs.reconstruction is not None and outputs.reconstructed is not None:
        scores |= consistency_scores(clips, outputs.reconstructed, outputs.reconstruction, real, seed)
        compared["reconstruction"] = (outputs.reconstruction, identities[outputs.reconstructed])
    for name, (verdicts, clusters) in compared.items():
        scores[f"frechet.judge.{name}"] = frechet.frechet_score(
            verdicts.features, real.features, clusters, seed, progress
        )
    return scores


def judge_scores(clips: LabelledClips, real: Verdicts, seed: int) -> dict[str, Score]:
    """Return `judge.<factor>.accuracy` on the real test clips, the ceiling of everything else, and `judge.joint`."""
    clusters = identity_indices(clips.identities)
    right = {name: values == clips.labels[name] for name, values in real.values.items()}
    chance = {name: _coincidence(clips.labels[name], len(clips.vocabulary[name])) for name in right}
    scores = {f"judge.{name}.accuracy": mean_score(right[name], clusters, chance[name], seed) for name in right}
    joint = np.all(list(right.values()), axis=0)
    scores["judge.joint"] = mean_score(joint, clusters, float(np.prod(list(chance.values()))), seed)
    return scores


def prior_static_scores(
    clips: LabelledClips, pairs: Pairs, drawn: Verdicts, seed: int, seen: Combinations | None = None
) -> dict[str, Score]:
    """Return `prior.static.*`: identities drawn from the prior, A's action kept.

    The action must stay and A's attributes must not. `prior.static.<attribute>.h_y` is the diversity of the identities:
    entropy of the judged values, in nats; `.h_y_given_x` is how unclear they are. `prior.static.new_combinations` is
    the share of identities whose combination of attributes is not in the training split, of which `seen` holds all, in
    the order of `drawn.values`. The field's `is`, `h_y_given_x` and `h_y` are of these clips too.
    """
    chance = chances(clips, pairs)
    attributes = {name: value for name, value in drawn.values.items() if name != ACTION}
    clusters = identity_indices(clips.identities)[pairs.dynamics_of]
    scores = action_scores(clips, pairs, drawn.values, chance, seed)
    scores |= leakage_scores(clips, pairs, attributes, chance, seed)
    for name, values in attributes.items():
        one_hot = np.eye(len(clips.vocabulary[name]))[values]
        scores[f"{name}.h_y"] = entropy_scores(one_hot, clusters, seed)["h_y"]
        if name in drawn.entropies:
            scores[f"{name}.h_y_given_x"] = mean_score(drawn.entropies[name], clusters, None, seed)
    if seen is not None:
        drawn_combinations = zip(*(values.tolist() for values in attributes.values()), strict=True)
        new = np.array([combination not in seen for combination in drawn_combinations])
        scores["new_combinations"] = mean_score(new, clusters, None, seed)
    return prefixed("prior.static", scores) | entropy_scores(drawn.action, clusters, seed)


def prior_dynamics_scores(clips: LabelledClips, pairs: Pairs, drawn: Verdicts, seed: int) -> dict[str, Score]:
    """Return `prior.dynamics.*`: dynamics drawn from the prior, B's identity kept.

    The attributes must stay and B's action must not. `h_y` is the diversity of the drawn actions, `h_y_given_x` how
    unclear they are.
    """
    chance = chances(clips, pairs)
    action = {ACTION: drawn.values[ACTION]}
    clusters = identity_indices(clips.identities)[pairs.static_of]
    scores = static_scores(clips, pairs, drawn.values, chance, seed)
    scores |= leakage_scores(clips, pairs, action, chance, seed)
    scores |= entropy_scores(drawn.action, clusters, seed)
    return prefixed("prior.dynamics", scores)


def consistency_scores(
    clips: LabelledClips, indices: NDArray[np.int64], outputs: Verdicts, real: Verdicts, seed: int
) -> dict[str, Score]:
    """Return `consistency.<factor>`, how often the verdicts on a clip and its reconstruction agree, and
    `consistency.joint` of all factors at once.

    It is not an accuracy: the verdicts need not be right. Chance is the agreement on two clips drawn at random.
    """
    clusters = identity_indices(clips.identities)[indices]
    same = {name: values == real.values[name][indices] for name, values in outputs.values.items()}
    chance = {name: _coincidence(real.values[name][indices], len(clips.vocabulary[name])) for name in same}
    scores = {f"consistency.{name}": mean_score(same[name], clusters, chance[name], seed) for name in same}
    joint = np.all(list(same.values()), axis=0)
    scores["consistency.joint"] = mean_score(joint, clusters, float(np.prod(list(chance.values()))), seed)
    return scores


def _coincidence(values: NDArray[np.int64], count: int) -> float:
    """Return the probability that two values drawn at random are equal."""
    frequencies = np.bincount(values, minlength=count) / len(values)
    return float(frequencies @ frequencies)

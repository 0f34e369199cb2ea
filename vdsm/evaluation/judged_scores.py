"""Every figure that follows from what the judge says of a system's outputs, whoever made them: our model, the renderer,
or the clips of anyone else's model."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vdsm.evaluation.clips import ACTION, LabelledClips
from vdsm.evaluation.frechet import frechet_score
from vdsm.evaluation.judge import Verdicts
from vdsm.evaluation.pairs import Pairs, chances
from vdsm.evaluation.scores import Score, entropy_scores, mean_score
from vdsm.evaluation.swap_scores import (
    action_scores,
    identities,
    leakage_scores,
    named,
    static_scores,
    swap_scores,
)


@dataclass(frozen=True)
class Outputs:
    """Verdicts on what a system makes of each pair of clips A (dynamics) and B (static). None: it did not make them."""

    swap: Verdicts | None = None
    """A's action by B's identity."""
    prior_static: Verdicts | None = None
    """A's action by an identity drawn from the prior."""
    prior_dynamics: Verdicts | None = None
    """Something drawn from the prior, done by B's identity."""
    reconstruction: Verdicts | None = None
    """Clips decoded from their own codes."""
    reconstructed: NDArray[np.int64] | None = None
    """Which clips these are: positions in the test split."""


def output_scores(clips: LabelledClips, pairs: Pairs, outputs: Outputs, real: Verdicts, seed: int) -> dict[str, Score]:
    """`swap.*`, `leakage.*`, `prior.*`, `is`, `h_y_given_x`, `h_y`, `consistency.*` and `frechet.judge.*`.

    `real` are the verdicts on all real test clips.
    """
    scores: dict[str, Score] = {}
    who = identities(clips)
    features = {}
    if outputs.swap is not None:
        scores |= swap_scores(clips, pairs, outputs.swap.values, seed)
        features["swap"] = (outputs.swap, who[pairs.static_of])
    if outputs.prior_static is not None:
        scores |= prior_static_scores(clips, pairs, outputs.prior_static, seed)
        features["prior_static"] = (outputs.prior_static, who[pairs.dynamics_of])
    if outputs.prior_dynamics is not None:
        scores |= prior_dynamics_scores(clips, pairs, outputs.prior_dynamics, seed)
        features["prior_dynamics"] = (outputs.prior_dynamics, who[pairs.static_of])
    if outputs.reconstruction is not None and outputs.reconstructed is not None:
        scores |= consistency_scores(clips, outputs.reconstructed, outputs.reconstruction, real, seed)
        features["reconstruction"] = (outputs.reconstruction, who[outputs.reconstructed])
    for name, (verdicts, clusters) in features.items():
        scores[f"frechet.judge.{name}"] = frechet_score(verdicts.features, real.features, clusters, seed)
    return scores


def judge_scores(clips: LabelledClips, real: Verdicts, seed: int) -> dict[str, Score]:
    """`judge.<factor>.accuracy` on the real test clips, the ceiling of everything else, and `judge.joint` of all."""
    who = identities(clips)
    right = {name: values == clips.labels[name] for name, values in real.values.items()}
    chance = {name: _agreement(clips.labels[name], len(clips.vocabulary[name])) for name in right}
    scores = {f"judge.{name}.accuracy": mean_score(right[name], who, chance[name], seed) for name in right}
    everything = np.all(list(right.values()), axis=0)
    scores["judge.joint"] = mean_score(everything, who, float(np.prod(list(chance.values()))), seed)
    return scores


def prior_static_scores(clips: LabelledClips, pairs: Pairs, drawn: Verdicts, seed: int) -> dict[str, Score]:
    """`prior.static.*`: identities drawn from the prior, A's action kept.

    The action must stay, A's attributes must not, and `prior.static.<attribute>.h_y` says how varied the identities
    are (entropy of the judged values, in nats). The field's `is`, `h_y_given_x` and `h_y` are of these clips.
    """
    chance = chances(clips, pairs)
    attributes = {name: value for name, value in drawn.values.items() if name != ACTION}
    clusters = identities(clips)[pairs.dynamics_of]
    scores = action_scores(clips, pairs, drawn.values, chance, seed)
    scores |= leakage_scores(clips, pairs, attributes, chance, seed)
    for name, values in attributes.items():
        certain = np.eye(len(clips.vocabulary[name]))[values]
        scores[f"{name}.h_y"] = entropy_scores(certain, clusters, seed)["h_y"]
    return named("prior.static", scores) | entropy_scores(drawn.action, clusters, seed)


def prior_dynamics_scores(clips: LabelledClips, pairs: Pairs, drawn: Verdicts, seed: int) -> dict[str, Score]:
    """`prior.dynamics.*`: dynamics drawn from the prior, B's identity kept. The attributes must stay, B's action must
    not; `h_y` says how varied the drawn actions are and `h_y_given_x` how unclear."""
    chance = chances(clips, pairs)
    action = {ACTION: drawn.values[ACTION]}
    scores = static_scores(clips, pairs, drawn.values, chance, seed)
    scores |= leakage_scores(clips, pairs, action, chance, seed)
    scores |= entropy_scores(drawn.action, identities(clips)[pairs.static_of], seed)
    return named("prior.dynamics", scores)


def consistency_scores(
    clips: LabelledClips, indices: NDArray[np.int64], outputs: Verdicts, real: Verdicts, seed: int
) -> dict[str, Score]:
    """`consistency.<factor>`: the judge says the same of a clip and of its reconstruction; `consistency.joint`: of all
    factors at once. Right or wrong does not matter, so it is no accuracy. Chance: of two clips drawn at random."""
    who = identities(clips)[indices]
    same = {name: values == real.values[name][indices] for name, values in outputs.values.items()}
    chance = {name: _agreement(real.values[name][indices], len(clips.vocabulary[name])) for name in same}
    scores = {f"consistency.{name}": mean_score(same[name], who, chance[name], seed) for name in same}
    everything = np.all(list(same.values()), axis=0)
    scores["consistency.joint"] = mean_score(everything, who, float(np.prod(list(chance.values()))), seed)
    return scores


def _agreement(values: NDArray[np.int64], count: int) -> float:
    """Chance that two values drawn at random are the same."""
    frequencies = np.bincount(values, minlength=count) / len(values)
    return float(frequencies @ frequencies)

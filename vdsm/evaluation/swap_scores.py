"""Scores of the judge's verdicts on swapped clips: accuracy of what should show, leakage of what was replaced."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from vdsm.evaluation.clips import ACTION, LabelledClips, static_attributes
from vdsm.evaluation.identities import identity_indices
from vdsm.evaluation.pairs import Pairs, chances
from vdsm.evaluation.scores import Score, mean_score

Values = Mapping[str, NDArray[np.int64]]


def swap_scores(clips: LabelledClips, pairs: Pairs, judged: Values, seed: int) -> dict[str, Score]:
    """Return the scores of one output per pair, from the judged value of each factor (int64 [P]).

    `swap.action.accuracy`: judged action is A's. `swap.static.<attribute>.accuracy`: judged attribute is B's;
    `swap.static.joint`: all of them are. `leakage.<factor>`: judged value is that of the clip that should *not* give
    the factor. Without leakage that happens as often as both clips have the same value, which is its chance; an output
    that copies the wrong clip scores 1.
    """
    chance = chances(clips, pairs)
    kept = action_scores(clips, pairs, judged, chance, seed) | static_scores(clips, pairs, judged, chance, seed)
    return prefixed("swap", kept) | leakage_scores(clips, pairs, judged, coincidences(clips, pairs), seed)


def coincidences(clips: LabelledClips, pairs: Pairs) -> dict[str, float]:
    """Return the share of pairs whose clips share the value of each factor: how often a perfect swap seems to leak."""
    return {
        name: float(np.mean(np.asarray(labels)[pairs.dynamics_of] == np.asarray(labels)[pairs.static_of]))
        for name, labels in clips.labels.items()
    }


def prefixed(prefix: str, scores: Mapping[str, Score]) -> dict[str, Score]:
    """Return the same scores with `prefix.` before their names."""
    return {f"{prefix}.{name}": score for name, score in scores.items()}


def action_scores(
    clips: LabelledClips, pairs: Pairs, judged: Values, chance: Mapping[str, float], seed: int
) -> dict[str, Score]:
    """Return `action.accuracy`: how often the judged action is A's."""
    clusters = identity_indices(clips.identities)[pairs.dynamics_of]
    correct = judged[ACTION] == clips.labels[ACTION][pairs.dynamics_of]
    return {"action.accuracy": mean_score(correct, clusters, chance[ACTION], seed)}


def static_scores(
    clips: LabelledClips, pairs: Pairs, judged: Values, chance: Mapping[str, float], seed: int
) -> dict[str, Score]:
    """Return `static.<attribute>.accuracy` and `static.joint`: how often the judged attributes are B's."""
    names = [name for name in static_attributes(clips) if name in judged]
    clusters = identity_indices(clips.identities)[pairs.static_of]
    correct = {name: judged[name] == clips.labels[name][pairs.static_of] for name in names}
    scores = {f"static.{name}.accuracy": mean_score(correct[name], clusters, chance[name], seed) for name in names}
    if names:
        scores["static.joint"] = mean_score(np.all(list(correct.values()), axis=0), clusters, chance["joint"], seed)
    return scores


def leakage_scores(
    clips: LabelledClips, pairs: Pairs, judged: Values, chance: Mapping[str, float], seed: int
) -> dict[str, Score]:
    """Return `leakage.action` (judged as B's) and `leakage.<attribute>` (judged as A's), over all pairs."""
    scores = {}
    identities = identity_indices(clips.identities)
    for name in (ACTION, *static_attributes(clips)):
        if name in judged:
            replaced = pairs.static_of if name == ACTION else pairs.dynamics_of
            leaked = judged[name] == np.asarray(clips.labels[name])[replaced]
            scores[f"leakage.{name}"] = mean_score(leaked, identities[replaced], chance[name], seed)
    return scores


def confusion(clips: LabelledClips, pairs: Pairs, name: str, judged: NDArray[np.int64]) -> list[list[int]]:
    """Return how often each correct value of a factor (row) was judged as each value (column)."""
    size = len(clips.vocabulary[name])
    counts = np.zeros((size, size), dtype=np.int64)
    np.add.at(counts, (_correct_values(clips, pairs, name), judged), 1)
    rows: list[list[int]] = counts.tolist()
    return rows


def worst_pairs(clips: LabelledClips, pairs: Pairs, judged: Values) -> NDArray[np.int64]:
    """Return positions of the pairs with a wrong factor: most wrong factors first, then in the order of the pairs."""
    wrong = np.zeros(len(pairs), dtype=np.int64)
    for name, values in judged.items():
        wrong += values != _correct_values(clips, pairs, name)
    order = np.argsort(-wrong, kind="stable")
    return order[: int((wrong > 0).sum())].astype(np.int64)


def _correct_values(clips: LabelledClips, pairs: Pairs, name: str) -> NDArray[np.int64]:
    """Return the value of a factor that the output of each pair should show: [P]."""
    donors = pairs.dynamics_of if name == ACTION else pairs.static_of
    values: NDArray[np.int64] = np.asarray(clips.labels[name])[donors]
    return values

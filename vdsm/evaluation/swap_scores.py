"""What the judge's verdicts on swapped clips mean: accuracy of what was asked for, leakage of what was replaced."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from vdsm.evaluation.clips import ACTION, LabelledClips, static_attributes
from vdsm.evaluation.pairs import Pairs, chances
from vdsm.evaluation.scores import Score, mean_score

Values = Mapping[str, NDArray[np.int64]]


def swap_scores(clips: LabelledClips, pairs: Pairs, judged: Values, seed: int) -> dict[str, Score]:
    """Scores of one output per pair, by the judged value of each factor (int64 [P]).

    `swap.action.accuracy`: judged action is A's. `swap.static.<attribute>.accuracy`: judged attribute is B's;
    `swap.static.joint`: all of them are. `leakage.<factor>`: the judged value is that of the clip that should *not*
    give it. Where nothing leaks, that happens as often as the two clips are alike in the factor, which is its chance;
    an output that copies the wrong clip has 1.
    """
    chance = chances(clips, pairs)
    kept = action_scores(clips, pairs, judged, chance, seed) | static_scores(clips, pairs, judged, chance, seed)
    return named("swap", kept) | leakage_scores(clips, pairs, judged, alike(clips, pairs), seed)


def alike(clips: LabelledClips, pairs: Pairs) -> dict[str, float]:
    """Share of the pairs whose two clips have the same value of each factor: how often a perfect swap seems to leak."""
    return {
        name: float(np.mean(np.asarray(labels)[pairs.dynamics_of] == np.asarray(labels)[pairs.static_of]))
        for name, labels in clips.labels.items()
    }


def named(prefix: str, scores: Mapping[str, Score]) -> dict[str, Score]:
    """The same scores with a word in front of their names."""
    return {f"{prefix}.{name}": score for name, score in scores.items()}


def action_scores(
    clips: LabelledClips, pairs: Pairs, judged: Values, chance: Mapping[str, float], seed: int
) -> dict[str, Score]:
    """`action.accuracy`: is the judged action A's?"""
    correct = judged[ACTION] == clips.labels[ACTION][pairs.dynamics_of]
    return {"action.accuracy": mean_score(correct, identities(clips)[pairs.dynamics_of], chance[ACTION], seed)}


def static_scores(
    clips: LabelledClips, pairs: Pairs, judged: Values, chance: Mapping[str, float], seed: int
) -> dict[str, Score]:
    """`static.<attribute>.accuracy` and `static.joint`: are the judged attributes B's?"""
    names = [name for name in static_attributes(clips) if name in judged]
    clusters = identities(clips)[pairs.static_of]
    correct = {name: judged[name] == clips.labels[name][pairs.static_of] for name in names}
    scores = {f"static.{name}.accuracy": mean_score(correct[name], clusters, chance[name], seed) for name in names}
    if names:
        scores["static.joint"] = mean_score(np.all(list(correct.values()), axis=0), clusters, chance["joint"], seed)
    return scores


def leakage_scores(
    clips: LabelledClips, pairs: Pairs, judged: Values, chance: Mapping[str, float], seed: int
) -> dict[str, Score]:
    """`leakage.action` (judged as B's) and `leakage.<attribute>` (judged as A's), over all pairs."""
    scores = {}
    for name in (ACTION, *static_attributes(clips)):
        if name in judged:
            replaced = pairs.static_of if name == ACTION else pairs.dynamics_of
            leaked = judged[name] == np.asarray(clips.labels[name])[replaced]
            scores[f"leakage.{name}"] = mean_score(leaked, identities(clips)[replaced], chance[name], seed)
    return scores


def identities(clips: LabelledClips) -> NDArray[np.int64]:
    """A number per identity for each clip: int64 [N]."""
    return np.unique(np.asarray(clips.identities), return_inverse=True)[1].astype(np.int64)


def confusion(clips: LabelledClips, pairs: Pairs, name: str, judged: NDArray[np.int64]) -> list[list[int]]:
    """How often each value asked for of a factor (row) was judged as each value (column)."""
    size = len(clips.vocabulary[name])
    counts = np.zeros((size, size), dtype=np.int64)
    np.add.at(counts, (_asked(clips, pairs, name), judged), 1)
    rows: list[list[int]] = counts.tolist()
    return rows


def worst(clips: LabelledClips, pairs: Pairs, judged: Values) -> NDArray[np.int64]:
    """Positions of the pairs with a wrong factor, most wrong factors first, then in the order of the pairs."""
    wrong = np.zeros(len(pairs), dtype=np.int64)
    for name, values in judged.items():
        wrong += values != _asked(clips, pairs, name)
    order = np.argsort(-wrong, kind="stable")
    return order[: int((wrong > 0).sum())].astype(np.int64)


def _asked(clips: LabelledClips, pairs: Pairs, name: str) -> NDArray[np.int64]:
    """The value of a factor that the output of each pair should show: [P]."""
    asked: NDArray[np.int64] = np.asarray(clips.labels[name])[pairs.dynamics_of if name == ACTION else pairs.static_of]
    return asked

"""Models whose scores are known beforehand, made of real test clips, to stand beside every table.

Each control answers a pair with a real test clip, so that it costs no more than a look at the judge's verdicts on the
real clips, and its distance from the expected score is the judge's own error.
"""

import numpy as np
from numpy.typing import NDArray

from vdsm.evaluation.clips import LabelledClips
from vdsm.evaluation.judge import Verdicts
from vdsm.evaluation.judged_scores import Outputs, output_scores
from vdsm.evaluation.pairs import Pairs, oracle
from vdsm.evaluation.scores import Score
from vdsm.evaluation.swap_scores import identities

CONTROLS = {
    "perfect": "the real clip of B's identity in A's action: the judge's ceiling",
    "ignores_static": "a real clip of A's action by a random identity: a decoder that ignores the static code",
    "ignores_dynamics": "a real clip of B's identity in a random action: a decoder that ignores the dynamics code",
    "copies": "clip A as it is: codes that hold the whole clip",
    "shuffled": "the perfect answer of another, random pair: no information at all",
    "renderer": "the program that drew the data, asked for B's identity in A's action: the perfect model",
}
"""Name of each control and what it answers. The last is there only where the program that drew the data is."""


def control_scores(clips: LabelledClips, pairs: Pairs, real: Verdicts, seed: int) -> dict[str, dict[str, Score]]:
    """Swap scores and Frechet distance of every control, from the verdicts on all real test clips.

    Where the data lacks some (identity, action) combinations, `perfect`, `ignores_*` and `shuffled` are measured on the
    pairs that have their clip.
    """
    generator = np.random.default_rng([seed, 2])
    who, perfect = identities(clips), oracle(clips, pairs)
    answers: dict[str, NDArray[np.int64]] = {
        "perfect": perfect,
        "ignores_static": _random_alike(np.asarray(clips.labels["action"]), pairs.dynamics_of, generator),
        "ignores_dynamics": _random_alike(who, pairs.static_of, generator),
        "copies": pairs.dynamics_of,
        "shuffled": perfect[generator.permutation(len(perfect))],
    }
    return {name: _scores(clips, pairs, answer, real, seed) for name, answer in answers.items()}


def _random_alike(
    groups: NDArray[np.int64], of: NDArray[np.int64], generator: np.random.Generator
) -> NDArray[np.int64]:
    """For each clip of `of`, a random clip of its group."""
    members = {group: np.flatnonzero(groups == group) for group in np.unique(groups[of])}
    return np.array([generator.choice(members[groups[index]]) for index in of], dtype=np.int64)


def _scores(
    clips: LabelledClips, pairs: Pairs, answer: NDArray[np.int64], real: Verdicts, seed: int
) -> dict[str, Score]:
    there = answer >= 0
    if not there.any():
        return {}
    shown = answer[there]
    outputs = Outputs(
        Verdicts(real.action[shown], {name: value[shown] for name, value in real.values.items()}, real.features[shown])
    )
    return output_scores(clips, Pairs(pairs.dynamics_of[there], pairs.static_of[there]), outputs, real, seed)

"""Models whose scores are known beforehand, made of real test clips, as a reference in every table.

Each control answers a pair with a real test clip, so that it costs no more than looking up the judge's verdict on that
clip. Its distance from the expected score is the judge's own error.
"""

import numpy as np
from numpy.typing import NDArray

from vdsm.evaluation import frechet
from vdsm.evaluation.clips import LabelledClips
from vdsm.evaluation.identities import identity_indices
from vdsm.evaluation.judge import Verdicts
from vdsm.evaluation.judged_scores import Outputs, output_scores
from vdsm.evaluation.likeness import transfer_scores
from vdsm.evaluation.pairs import Pairs, oracle
from vdsm.evaluation.progress import NO_PROGRESS, Progress
from vdsm.evaluation.scores import Score
from vdsm.evaluation.traits import Traits

CONTROLS = {
    "perfect": "the real clip of B's identity in A's action: the judge's ceiling",
    "ignores_static": "a real clip of A's action by a random identity: a decoder that ignores the static code",
    "ignores_dynamics": "a real clip of B's identity in a random action: a decoder that ignores the dynamics code",
    "copies": "clip A as it is: codes that hold the whole clip",
    "shuffled": "the perfect answer of another, random pair: no information at all",
    "renderer": "the program that drew the data, asked for B's identity in A's action: the perfect model",
}
"""Name of each control and its answer. `renderer` exists only where the program that drew the data is available."""
CONTROL_PHASES = ("scoring the controls",)
"""Phases of progress that `control_scores` starts."""


def control_scores(
    clips: LabelledClips, pairs: Pairs, real: Verdicts, seed: int, progress: Progress = NO_PROGRESS,
    traits: Traits | None = None,
) -> dict[str, dict[str, Score]]:  # fmt: skip
    """Return the swap scores and the Frechet distance of every control, from the verdicts on all real test clips.

    With the traits of all real test clips, the scores of `transfer_scores` too.

    Where the data lacks some (identity, action) combinations, `perfect`, `ignores_*` and `shuffled` are measured on the
    pairs whose answer exists.
    """
    generator = np.random.default_rng([seed, 2])
    clusters, perfect = identity_indices(clips.identities), oracle(clips, pairs)
    answers: dict[str, NDArray[np.int64]] = {
        "perfect": perfect,
        "ignores_static": _random_member(np.asarray(clips.labels["action"]), pairs.dynamics_of, generator),
        "ignores_dynamics": _random_member(clusters, pairs.static_of, generator),
        "copies": pairs.dynamics_of,
        "shuffled": perfect[generator.permutation(len(perfect))],
    }
    answered = sum(bool((answer >= 0).any()) for answer in answers.values())
    progress.start(CONTROL_PHASES[0], answered * frechet.RESAMPLES, unit="resamples")
    return {name: _scores(clips, pairs, answer, real, seed, progress, traits) for name, answer in answers.items()}


def _random_member(
    groups: NDArray[np.int64], of: NDArray[np.int64], generator: np.random.Generator
) -> NDArray[np.int64]:
    """Return, for each clip of `of`, a random clip of the same group."""
    members = {group: np.flatnonzero(groups == group) for group in np.unique(groups[of])}
    return np.array([generator.choice(members[groups[index]]) for index in of], dtype=np.int64)


def _scores(
    clips: LabelledClips, pairs: Pairs, answer: NDArray[np.int64], real: Verdicts, seed: int, progress: Progress,
    traits: Traits | None,
) -> dict[str, Score]:  # fmt: skip
    exists = answer >= 0
    if not exists.any():
        return {}
    outputs = Outputs(real.select(answer[exists]))
    answered = Pairs(pairs.dynamics_of[exists], pairs.static_of[exists])
    scores = output_scores(clips, answered, outputs, real, seed, progress)
    if traits is not None:
        scores |= transfer_scores(traits.select(answer[exists]), answered, traits, clips.identities, seed)
    return scores

"""The scores of four pairs of six clips, with every value, chance, count and cluster written out by hand."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.vdsm.evaluation.six_clips import CLIPS, IDENTITY, SEED
from vdsm.evaluation.frechet import frechet_score
from vdsm.evaluation.judge import Verdicts
from vdsm.evaluation.judged_scores import (
    Outputs,
    consistency_scores,
    judge_scores,
    output_scores,
    prior_dynamics_scores,
    prior_static_scores,
)
from vdsm.evaluation.measurement import summarise_swaps
from vdsm.evaluation.pairs import Pairs, chances, oracle
from vdsm.evaluation.scores import Score, entropy_scores, mean_score, r2_score
from vdsm.evaluation.swap_scores import coincidences, swap_scores

PAIRS = Pairs(np.array([0, 1, 2, 5]), np.array([2, 4, 1, 3]))
CHANCE = {
    # Actions of A: 0 1 0 0, of B: 0 0 1 1. Hats of A: 0 0 1 1, of B: 1 1 0 1. Hair of A: 0 0 1 2, of B: 1 2 0 1.
    "action": 3 / 4 * 1 / 2 + 1 / 4 * 1 / 2,
    "hat": 1 / 2 * 1 / 4 + 1 / 2 * 3 / 4,
    "hair": 1 / 2 * 1 / 4 + 1 / 4 * 1 / 2 + 1 / 4 * 1 / 4,
}
COINCIDENCE = {"action": 1 / 4, "hat": 1 / 4, "hair": 0.0}
JUDGED = {"action": np.array([0, 1, 1, 0]), "hat": np.array([1, 0, 1, 1]), "hair": np.array([1, 2, 1, 2])}


def verdicts(values: dict[str, NDArray[np.int64]], offset: float = 0.0) -> Verdicts:
    count = len(values["action"])
    action = np.where(values["action"][:, None] == np.arange(2), 0.8, 0.2)
    features = np.sin(np.arange(3 * count, dtype=np.float32).reshape(count, 3) + offset)
    return Verdicts(action, values, features)


REAL = verdicts(
    {
        "action": np.array([0, 1, 0, 0, 0, 1]),
        "hat": np.array([0, 1, 1, 1, 1, 1]),
        "hair": np.array([0, 0, 1, 1, 2, 0]),
    }
)


def score(right: list[int], clusters: NDArray[np.int64], chance: float) -> Score:
    return mean_score(np.array(right), clusters, chance, SEED)


def approximately(scores: dict[str, Score]) -> dict[str, Any]:
    return {name: pytest.approx(list(vars(one).values())) for name, one in scores.items()}


def values_of(scores: dict[str, Score]) -> dict[str, list[Any]]:
    return {name: list(vars(one).values()) for name, one in scores.items()}


A, B = IDENTITY[PAIRS.dynamics_of], IDENTITY[PAIRS.static_of]


def test_chance_and_coincidence() -> None:
    joint = CHANCE["hat"] * CHANCE["hair"]
    assert chances(CLIPS, PAIRS) == pytest.approx({**CHANCE, "joint": joint})
    assert coincidences(CLIPS, PAIRS) == pytest.approx(COINCIDENCE)


def test_swaps() -> None:
    expected = {
        "swap.action.accuracy": score([1, 1, 0, 1], A, CHANCE["action"]),
        "swap.static.hat.accuracy": score([1, 0, 0, 1], B, CHANCE["hat"]),
        "swap.static.hair.accuracy": score([1, 1, 0, 0], B, CHANCE["hair"]),
        "swap.static.joint": score([1, 0, 0, 0], B, CHANCE["hat"] * CHANCE["hair"]),
        "leakage.action": score([1, 0, 1, 0], B, COINCIDENCE["action"]),
        "leakage.hat": score([0, 1, 1, 1], A, COINCIDENCE["hat"]),
        "leakage.hair": score([0, 0, 1, 1], A, COINCIDENCE["hair"]),
    }
    assert values_of(swap_scores(CLIPS, PAIRS, JUDGED, SEED)) == approximately(expected)


def test_identities_from_the_prior() -> None:
    def diversity(values: list[int], count: int) -> Score:
        return entropy_scores(np.eye(count)[values], A, SEED)["h_y"]

    drawn = verdicts(JUDGED)
    expected = {
        "prior.static.action.accuracy": score([1, 1, 0, 1], A, CHANCE["action"]),
        "prior.static.leakage.hat": score([0, 1, 1, 1], A, CHANCE["hat"]),
        "prior.static.leakage.hair": score([0, 0, 1, 1], A, CHANCE["hair"]),
        "prior.static.hat.h_y": diversity([1, 0, 1, 1], 2),
        "prior.static.hair.h_y": diversity([1, 2, 1, 2], 3),
        **entropy_scores(drawn.action, A, SEED),
    }
    assert expected["prior.static.hair.h_y"].value == pytest.approx(math.log(2))
    assert values_of(prior_static_scores(CLIPS, PAIRS, drawn, SEED)) == approximately(expected)


def test_actions_from_the_prior() -> None:
    drawn = verdicts(JUDGED)
    expected = {
        "prior.dynamics.static.hat.accuracy": score([1, 0, 0, 1], B, CHANCE["hat"]),
        "prior.dynamics.static.hair.accuracy": score([1, 1, 0, 0], B, CHANCE["hair"]),
        "prior.dynamics.static.joint": score([1, 0, 0, 0], B, CHANCE["hat"] * CHANCE["hair"]),
        "prior.dynamics.leakage.action": score([1, 0, 1, 0], B, CHANCE["action"]),
        **{f"prior.dynamics.{name}": one for name, one in entropy_scores(drawn.action, B, SEED).items()},
    }
    assert values_of(prior_dynamics_scores(CLIPS, PAIRS, drawn, SEED)) == approximately(expected)


def test_the_judge_itself() -> None:
    chance = {"action": (4 / 6) ** 2 + (2 / 6) ** 2, "hat": (2 / 6) ** 2 + (4 / 6) ** 2, "hair": 3 * (2 / 6) ** 2}
    expected = {
        "judge.action.accuracy": score([1, 1, 1, 0, 1, 0], IDENTITY, chance["action"]),
        "judge.hat.accuracy": score([1, 0, 1, 1, 1, 1], IDENTITY, chance["hat"]),
        "judge.hair.accuracy": score([1, 1, 1, 1, 1, 0], IDENTITY, chance["hair"]),
        "judge.joint": score([1, 0, 1, 0, 1, 0], IDENTITY, math.prod(chance.values())),
    }
    assert values_of(judge_scores(CLIPS, REAL, SEED)) == approximately(expected)


def test_reconstructions() -> None:
    indices, outputs = np.array([0, 1, 2, 5]), verdicts(JUDGED)
    # The judge's values on these four real clips: actions 0 1 0 1, hats 0 1 1 1, hair 0 0 1 0.
    chance = {"action": 1 / 2, "hat": (1 / 4) ** 2 + (3 / 4) ** 2, "hair": (3 / 4) ** 2 + (1 / 4) ** 2}
    expected = {
        "consistency.action": score([1, 1, 0, 0], A, chance["action"]),
        "consistency.hat": score([0, 0, 1, 1], A, chance["hat"]),
        "consistency.hair": score([0, 0, 1, 0], A, chance["hair"]),
        "consistency.joint": score([0, 0, 0, 0], A, math.prod(chance.values())),
    }
    assert values_of(consistency_scores(CLIPS, indices, outputs, REAL, SEED)) == approximately(expected)


def test_outputs_get_the_scores_of_their_kinds_and_a_distance_each() -> None:
    swap, static, dynamics, own = (verdicts(JUDGED, offset) for offset in (1, 2, 3, 4))
    indices = np.array([1, 2, 3, 5])
    outputs = Outputs(swap, static, dynamics, own, indices)
    assert outputs.frechet_resamples == 4 * 200
    assert replace(outputs, swap=None).frechet_resamples == 3 * 200
    expected = {
        **swap_scores(CLIPS, PAIRS, JUDGED, SEED),
        **prior_static_scores(CLIPS, PAIRS, static, SEED),
        **prior_dynamics_scores(CLIPS, PAIRS, dynamics, SEED),
        **consistency_scores(CLIPS, indices, own, REAL, SEED),
        "frechet.judge.swap": frechet_score(swap.features, REAL.features, B, SEED),
        "frechet.judge.prior_static": frechet_score(static.features, REAL.features, A, SEED),
        "frechet.judge.prior_dynamics": frechet_score(dynamics.features, REAL.features, B, SEED),
        "frechet.judge.reconstruction": frechet_score(own.features, REAL.features, IDENTITY[indices], SEED),
    }
    assert output_scores(CLIPS, PAIRS, outputs, REAL, SEED) == expected
    assert output_scores(CLIPS, PAIRS, Outputs(reconstruction=own), REAL, SEED) == {}


def test_confusion_and_the_order_of_wrong_pairs() -> None:
    swapped = summarise_swaps(CLIPS, PAIRS, JUDGED)
    assert swapped.confusion == {
        "action": [[2, 1], [0, 1]],
        "hat": [[0, 1], [1, 2]],
        "hair": [[0, 1, 0], [0, 1, 1], [0, 0, 1]],
    }
    # Wrong factors: none, the hat, all three, the hair.
    assert swapped.wrong.tolist() == [2, 1, 3]
    assert (swapped.pairs, swapped.judged) == (PAIRS, JUDGED)


def test_the_oracle_is_absent_where_no_clip_shows_the_combination() -> None:
    # Bob walks, cat runs (no such clip), ann walks, bob walks; of two clips of cat walking, the last one counts.
    assert oracle(CLIPS, PAIRS).tolist() == [2, -1, 0, 2]
    assert oracle(CLIPS, Pairs(np.array([0]), np.array([4]))).tolist() == [5]


def test_the_mean_of_nothing_has_no_value() -> None:
    empty = mean_score(np.array([]), np.array([], dtype=np.int64), 0.5, 0)
    assert (empty.n, empty.chance) == (0, 0.5)
    assert all(math.isnan(value) for value in (empty.value, empty.low, empty.high))


def test_r2_compares_squared_errors_with_those_of_the_baseline() -> None:
    errors, spread = np.array([1.0, 0.0, 2.0, 1.0]), np.array([4.0, 4.0, 4.0, 4.0])
    found = r2_score(errors, spread, np.array([0, 0, 1, 1]), SEED)
    assert (found.value, found.n, found.chance) == (1 - 4 / 16, 4, 0.0)
    # Either identity alone: 1 - 1/8 and 1 - 3/8.
    assert (found.low, found.high) == (0.625, 0.875)
    # One resample in 27 draws the clip that equals the mean three times; it has no R2.
    found = r2_score(np.array([1.0, 1.0, 1.0]), np.array([1.0, 0.0, 1.0]), np.arange(3), SEED)
    assert (found.value, found.low, found.high) == (1 - 3 / 2, -2.0, 0.0)


def test_scores_are_rounded_for_a_file_and_exponentials_are_of_all_three_numbers() -> None:
    one = Score(1 / 3, 7, None, 0.1234567, 0.5)
    assert one.rounded() == {"value": 0.333333, "n": 7, "chance": None, "low": 0.123457, "high": 0.5}
    assert one.exponential() == Score(math.exp(1 / 3), 7, None, math.exp(0.1234567), math.exp(0.5))

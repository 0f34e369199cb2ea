"""Scores, their intervals and their chance levels."""

import numpy as np
import pytest

from tests.vdsm.evaluation.squares import Squares
from vdsm.evaluation.pairs import Pairs, chances, draw_pairs, oracle
from vdsm.evaluation.scores import entropy_scores, mean_score
from vdsm.evaluation.swap_scores import swap_scores


@pytest.mark.slow
def test_interval_covers_the_true_share_about_95_times_in_a_hundred() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        values = generator.random(150) < 0.7
        score = mean_score(values, np.arange(150), None, seed=trial)
        assert score.value == values.mean()
        covered += score.low <= 0.7 <= score.high
    assert 180 <= covered <= 198


def test_interval_is_as_wide_as_the_number_of_identities_allows() -> None:
    """Ten copies of the same answer count as one."""
    generator = np.random.default_rng(0)
    answers = generator.random(60) < 0.6
    once = mean_score(answers, np.arange(60), None, 0)
    copied = mean_score(np.repeat(answers, 10), np.repeat(np.arange(60), 10), None, 0)
    assert (copied.low, copied.high) == (once.low, once.high)
    assert copied.n == 600


def test_inception_score_has_its_known_ends() -> None:
    certain = np.eye(9)[np.arange(90) % 9]
    scores = entropy_scores(certain, np.arange(90), 0)
    assert scores["is"].value == pytest.approx(9)
    assert scores["h_y_given_x"].value == pytest.approx(0)
    assert scores["h_y"].value == pytest.approx(np.log(9))
    uncertain = entropy_scores(np.full((90, 9), 1 / 9), np.arange(90), 0)
    assert uncertain["is"].value == pytest.approx(1)
    same = entropy_scores(np.eye(9)[np.zeros(90, dtype=int)], np.arange(90), 0)
    assert same["is"].value == pytest.approx(1)
    assert same["h_y"].value == pytest.approx(0)


def test_inception_score_of_a_mixed_judge_is_that_of_the_definition() -> None:
    probabilities = np.random.default_rng(1).dirichlet(np.ones(4), size=50)
    marginal = probabilities.mean(0)
    divergence = np.mean([sum(p * np.log(p / q) for p, q in zip(row, marginal, strict=True)) for row in probabilities])
    score = entropy_scores(probabilities, np.arange(50), 0)["is"]
    assert score.value == pytest.approx(np.exp(divergence))
    assert score.low <= score.value <= score.high


def test_pairs_are_fixed_by_the_seed_and_never_of_one_identity(test_clips: Squares) -> None:
    pairs, again, other = (draw_pairs(test_clips, 150, seed) for seed in (0, 0, 1))
    assert pairs.sha256(test_clips) == again.sha256(test_clips) != other.sha256(test_clips)
    identities = np.array(test_clips.identities)
    assert (identities[pairs.dynamics_of] != identities[pairs.static_of]).all()
    # 150 pairs of 64 clips: every clip is used two or three times
    assert set(np.bincount(pairs.dynamics_of, minlength=64)) <= {2, 3}


def test_chance_is_what_unrelated_outputs_reach(test_clips: Squares) -> None:
    pairs = draw_pairs(test_clips, 64, 0)
    chance = chances(test_clips, pairs)
    assert chance["action"] == pytest.approx(1 / 4)
    labels = test_clips.labels["colour"]
    same = [labels[a] == labels[b] for a in pairs.dynamics_of for b in pairs.static_of]
    assert chance["colour"] == pytest.approx(np.mean(same))
    assert chance["joint"] == pytest.approx(chance["colour"] * chance["side"])


def test_swap_scores_by_hand(test_clips: Squares) -> None:
    """Four pairs with given verdicts: the action of the last is B's, the colour of the second A's."""
    labels = {name: values.copy() for name, values in test_clips.labels.items()}
    all_differ = [
        (a, b)
        for a in range(64)
        for b in range(64)
        if all(labels[name][a] != labels[name][b] for name in ("action", "colour", "side"))
    ]
    chosen = np.array(all_differ[:: len(all_differ) // 4][:4])
    pairs = Pairs(chosen[:, 0], chosen[:, 1])
    judged = {name: labels[name][pairs.static_of].copy() for name in ("colour", "side")}
    judged["action"] = labels["action"][pairs.dynamics_of].copy()
    judged["action"][3] = labels["action"][pairs.static_of[3]]
    judged["colour"][1] = labels["colour"][pairs.dynamics_of[1]]
    scores = swap_scores(test_clips, pairs, judged, 0)
    assert {name: score.value for name, score in scores.items()} == {
        "swap.action.accuracy": 0.75,
        "swap.static.colour.accuracy": 0.75,
        "swap.static.side.accuracy": 1.0,
        "swap.static.joint": 0.75,
        "leakage.action": 0.25,
        "leakage.colour": 0.25,
        "leakage.side": 0.0,
    }


def test_oracle_is_the_real_clip_that_a_perfect_swap_would_give(test_clips: Squares) -> None:
    pairs = draw_pairs(test_clips, 64, 0)
    answer = oracle(test_clips, pairs)
    assert (answer >= 0).all()
    assert [test_clips.identities[index] for index in answer] == [test_clips.identities[b] for b in pairs.static_of]
    assert (test_clips.labels["action"][answer] == test_clips.labels["action"][pairs.dynamics_of]).all()

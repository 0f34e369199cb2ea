"""Scores of transfers without labels: who is nearest, whose clip leaks, how much changes over time."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.resamples import rough_scores
from tests.vdsm.evaluation.six_clips import IDENTITY, SEED
from tests.vdsm.evaluation.squares import PerfectModel, Squares
from vdsm.evaluation.likeness import CANDIDATES, nearer_than_others, real_scores, transfer_scores
from vdsm.evaluation.measurement import Measurement
from vdsm.evaluation.pairs import Pairs
from vdsm.evaluation.protocol import ProtocolConfig, measure
from vdsm.evaluation.scores import ratio_score
from vdsm.evaluation.traits import Traits

PEOPLE = ("ann", "ann", "bob", "bob", "cat", "cat")


def traits(count: int, seed: int = 0) -> Traits:
    generator = np.random.default_rng(seed)
    codes = [generator.normal(size=(count, 5)).astype(np.float32) for _ in range(2)]
    return Traits(codes[0], codes[1], generator.uniform(1, 2, count), generator.uniform(1, 2, count))


def slow_ranks(
    codes: NDArray[np.float32], table: NDArray[np.float32], donors: NDArray[np.int64],
    people: NDArray[np.int64], excluded: NDArray[np.int64],
) -> list[float]:  # fmt: skip
    """Return the shares where there are at most CANDIDATES candidates, so that all of them are drawn."""
    found = []
    for code, donor, never in zip(codes, donors, excluded, strict=True):
        own = sum((code.astype(float) - table[donor].astype(float)) ** 2)
        points = []
        for clip, person in enumerate(people):
            if person not in never:
                other = sum((code.astype(float) - table[clip].astype(float)) ** 2)
                points.append(1.0 if other > own else 0.5 if other == own else 0.0)
        found.append(sum(points) / len(points) if points else float("nan"))
    return found


def test_ranks_are_shares_of_the_clips_that_are_farther_away() -> None:
    real, outputs = traits(6), traits(9, seed=1)
    donors = np.array([0, 1, 2, 3, 4, 5, 0, 2, 4])
    for excluded in (IDENTITY[donors][:, None], np.stack([IDENTITY[donors], IDENTITY[(donors + 2) % 6]], axis=1)):
        found = nearer_than_others(outputs.motion, real.motion, donors, IDENTITY, excluded, SEED)
        assert found.tolist() == slow_ranks(outputs.motion, real.motion, donors, IDENTITY, excluded)
    everyone = np.tile([0, 1, 2], (9, 1))
    assert np.isnan(nearer_than_others(outputs.motion, real.motion, donors, IDENTITY, everyone, SEED)).all()


def test_of_many_clips_a_few_are_drawn_and_the_seed_decides_which() -> None:
    people = np.arange(400)
    table = np.linspace(0, 1, 400, dtype=np.float32)[:, None]
    donors = np.full(500, 100)
    outputs = np.repeat(table[[0]], 500, axis=0)
    first, again, other = (
        nearer_than_others(outputs, table, donors, people, people[donors][:, None], seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert set((first * CANDIDATES % 1).tolist()) == {0}
    assert first.mean() == pytest.approx(299 / 399, abs=0.01)


def test_outputs_that_are_all_the_same_score_chance() -> None:
    table = np.zeros((6, 3), dtype=np.float32)
    donors = np.arange(6)
    found = nearer_than_others(table, table, donors, IDENTITY, IDENTITY[donors][:, None], SEED)
    assert found.tolist() == [0.5] * 6


def test_each_score_compares_with_the_right_clip_and_people() -> None:
    """With clips on a line, each rank can be counted by hand."""
    line = np.arange(6, dtype=np.float32)[:, None]
    real = Traits(line, 5 - line, np.arange(1.0, 7.0), np.arange(2.0, 8.0))
    pairs = Pairs(np.array([0, 4]), np.array([2, 1]))  # ann moves, bob is shown; cat moves, ann is shown
    outputs = Traits(
        np.array([[2.4], [2.4]], dtype=np.float32), np.array([[4.8], [2.2]], dtype=np.float32),
        np.array([3.0, 4.0]), np.array([1.0, 3.0]),
    )  # fmt: skip
    found = transfer_scores(outputs, pairs, real, PEOPLE, SEED)
    # bob's clip 2 is nearest of all; ann's clip 1 is 1.4 away: clips 2 and 3 of bob are nearer, both of cat farther.
    assert found["likeness.identity"].value == (1 + 2 / 4) / 2
    # Motions are 5 4 3 2 1 0: A is 0.2 away, all others farther; then 1.2 away, where 3 and 2 are nearer.
    assert found["likeness.action"].value == (1 + 2 / 4) / 2
    # Clip 0 is 2.4 away, cat's 1.6 and 2.6; clip 4 is 1.6 away, bob's 0.4 and 0.6.
    assert found["likeness.leakage.identity"].value == (1 / 2 + 0) / 2
    # Bob's motion 3 is 1.8 away, cat's 3.8 and 4.8; ann's motion 4 is 1.8 away, bob's 0.8 and 0.2.
    assert found["likeness.leakage.action"].value == (1 + 0) / 2
    assert {found[name].chance for name in found if name.startswith("likeness")} == {0.5}
    assert found["smoothness.change"].value == (3 + 4) / (1 + 5)
    assert found["smoothness.acceleration"].value == (1 + 3) / (2 + 6)


def test_two_people_leave_no_third_whose_clip_could_leak_less() -> None:
    real = traits(4)
    found = transfer_scores(traits(2, 1), Pairs(np.array([0, 2]), np.array([3, 1])), real, PEOPLE[:4], SEED)
    assert found["likeness.identity"].n == 2
    assert found["likeness.leakage.identity"].n == found["likeness.leakage.action"].n == 0


def test_real_clips_are_compared_with_others_of_the_same_person() -> None:
    near = np.array([[0.0], [0.1], [5.0], [5.1], [9.0], [9.1]], dtype=np.float32)
    real = Traits(near, near, np.ones(6), np.ones(6))
    assert real_scores(real, PEOPLE, SEED)["likeness.real"].value == 1
    assert real_scores(real, PEOPLE, SEED)["likeness.real"].n == 6
    # Each clip of ann is nearer to bob's than to her other one, and so on.
    apart = Traits(near[[0, 2, 1, 4, 3, 5]], near, np.ones(6), np.ones(6))
    assert real_scores(apart, PEOPLE, SEED)["likeness.real"].value < 0.6
    assert real_scores(real, ("a", "b", "c", "d", "e", "f"), SEED) == {}


def test_a_ratio_is_that_of_sums_with_an_interval_over_people() -> None:
    above, below = np.array([1.0, 2, 3, 4, 5, 6]), np.array([2.0, 2, 0, 0, 4, 4])
    found = ratio_score(above, below, IDENTITY, None, SEED)
    assert (found.value, found.n) == (21 / 12, 6)
    generator = np.random.default_rng([SEED, 3])
    ratios = []
    for draw in generator.multinomial(3, [1 / 3] * 3, size=1000):
        sizes = sum(draw[person] * below[person == IDENTITY].sum() for person in range(3))
        if sizes:
            ratios.append(sum(draw[person] * above[person == IDENTITY].sum() for person in range(3)) / sizes)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(ratios, (0.025, 0.975))))


CONFIG = ProtocolConfig(clip_frames=4, pairs=96)
LABEL_FREE = ("likeness.", "smoothness.", "moving.", "cycle.", "reconstruction.", "still.")


class Relabelled:
    """The squares with other labels: shuffled, or none."""

    def __init__(self, clips: Squares, labels: dict[str, Any]) -> None:
        self.keys, self.identities, self.clip_frames = clips.keys, clips.identities, clips.clip_frames
        self.labels, self.vocabulary = labels, {name: clips.vocabulary[name] for name in labels}
        self.frames, self._count = clips.frames, len(clips)

    def __len__(self) -> int:
        return self._count


def label_free(measured: Measurement) -> dict[str, Any]:
    return {name: score for name, score in measured.scores.items() if name.startswith(LABEL_FREE)}


@pytest.mark.slow
def test_labels_change_none_of_these_scores_and_identities_do(renderer: PerfectModel, test_clips: Squares) -> None:
    shuffled = np.random.default_rng(0).permutation(len(test_clips))
    labels = {name: values[shuffled] for name, values in test_clips.labels.items()}
    with rough_scores():
        as_given, other, without = (
            label_free(measure(renderer, clips, None, CONFIG))
            for clips in (test_clips, Relabelled(test_clips, labels), Relabelled(test_clips, {}))
        )
        assert as_given == other == without
        assert len(as_given) == 30
        sources = Relabelled(test_clips, {})
        sources.identities = [f"file {index // 2}" for index in range(len(test_clips))]
        assert label_free(measure(renderer, sources, None, CONFIG)) != as_given


@pytest.mark.slow
def test_a_model_that_draws_the_right_square_is_near_the_top_and_the_controls_are_where_they_belong(
    renderer: PerfectModel, test_clips: Squares, train_clips: Squares, judge: Any
) -> None:
    with rough_scores():
        measured = measure(renderer, test_clips, judge, CONFIG)
    scores, controls = measured.scores, measured.controls
    assert scores["likeness.identity"].value > 0.98
    assert scores["likeness.action"].value > 0.7  # a quarter of the other clips show the same action
    assert scores["likeness.leakage.identity"].value == pytest.approx(0.5, abs=0.1)
    assert scores["likeness.real"].value > 0.98
    assert scores["smoothness.change"].value == pytest.approx(1, abs=0.15)
    assert scores["moving.self_swap.psnr"].value == scores["moving.poses.psnr"].value == 100
    for name in ("likeness.identity", "likeness.action", "smoothness.change"):
        assert controls["perfect"][name].value == pytest.approx(scores[name].value, abs=1e-6)
    assert controls["ignores_static"]["likeness.identity"].value == pytest.approx(0.5, abs=0.1)
    assert controls["ignores_dynamics"]["likeness.action"].value == pytest.approx(0.5, abs=0.1)
    assert controls["shuffled"]["likeness.identity"].value == pytest.approx(0.5, abs=0.1)
    assert controls["copies"]["likeness.identity"].value == pytest.approx(0.5, abs=0.1)
    assert controls["copies"]["likeness.action"].value > 0.98  # some clips differ in their colours alone
    assert controls["copies"]["likeness.leakage.identity"].value > 0.99

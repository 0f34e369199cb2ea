"""Probes find what a code holds, and only that."""

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import pytest
import torch

from tests.resamples import rough_scores
from vdsm.evaluation.measurement import Latents
from vdsm.evaluation.model import CodeTable
from vdsm.evaluation.probes import fit_mlp, probe_scores
from vdsm.evaluation.scores import Score

pytestmark = pytest.mark.slow

Code = Callable[..., np.ndarray]

N, LENGTH = 500, 4
FACTORS = ("action", "hat", "ground", "angle", "position")
VOCABULARY = {"action": ["a", "b", "c", "d"], "hat": ["on", "off"], "ground": ["only"]}


def latents(split: str, code: Code, count: int = N, factors: Collection[str] = FACTORS) -> Latents:
    """Return clips of which some `factors` are known.

    The static code is `code(action, hat, angle, noise)`, the dynamics code noise.
    """
    generator = np.random.default_rng([len(split)])
    action, hat = generator.integers(4, size=count), generator.integers(2, size=count)
    angle = generator.uniform(-1, 1, size=count)
    static = code(action, hat, angle, generator.normal(size=(count, 3)))
    track = angle[:, None] + np.arange(LENGTH)
    pose = np.stack((track, generator.normal(size=track.shape)), axis=-1)
    codes = [static, pose, generator.normal(size=(count, 5))]

    def some(values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name in factors}

    return Latents(
        CodeTable(*(torch.from_numpy(values).float() for values in codes)),
        some({"action": action, "hat": hat, "ground": np.zeros(count, dtype=np.int64)}), some(VOCABULARY),
        some({"angle": angle}), some({"position": track}), [f"{split}{number // 4}" for number in range(count)],
    )  # fmt: skip


def probed(code: Code, factors: Collection[str] = FACTORS, **options: Any) -> dict[str, Score]:
    train, test = (latents(split, code, factors=factors) for split in ("train", "test-clips"))
    return probe_scores(train, test, 0, **options)[0]


def one_hot(action: np.ndarray, hat: np.ndarray, angle: np.ndarray, noise: np.ndarray) -> np.ndarray:
    return np.concatenate((np.eye(4)[action], noise), axis=1)


@pytest.fixture(scope="module")
def found() -> dict[str, Score]:
    return probed(one_hot)


def test_a_label_that_lies_in_the_code_is_read_and_what_does_not_is_at_chance(found: dict[str, Score]) -> None:
    for kind in ("linear", "mlp"):
        assert found[f"probe.static.action.{kind}"].value > 0.99
        for name in ("static.hat", "dynamics.hat", "dynamics.action"):
            score = found[f"probe.{name}.{kind}"]
            assert score.value == pytest.approx(score.chance, abs=0.07), name
        assert found[f"probe.static.angle.{kind}"].value < 0.05
    assert found["probe.static.action.linear"].n == N
    assert not [name for name in found if "ground" in name]  # a label with a single value is not probed


def test_network_reads_what_a_linear_probe_cannot() -> None:
    """Which of two bits is hidden in their product."""

    def product(action: np.ndarray, hat: np.ndarray, angle: np.ndarray, noise: np.ndarray) -> np.ndarray:
        sign = np.sign(noise[:, :1])
        return np.concatenate((sign, sign * (2 * hat[:, None] - 1)), axis=1)

    found = probed(product, ["hat"])
    assert found["probe.static.hat.linear"].value < 0.8  # a line gets three of the four corners right
    assert found["probe.static.hat.mlp"].value > 0.97


def test_continuous_factors_have_an_r2() -> None:
    def measured(action: np.ndarray, hat: np.ndarray, angle: np.ndarray, noise: np.ndarray) -> np.ndarray:
        return np.stack((angle, noise[:, 0]), axis=1)

    def squared(action: np.ndarray, hat: np.ndarray, angle: np.ndarray, noise: np.ndarray) -> np.ndarray:
        return np.stack((angle**2, np.sign(angle)), axis=1)

    straight, bent = probed(measured, kinds=("linear",)), probed(squared, ["angle"])
    assert straight["probe.static.angle.linear"].value > 0.99
    assert straight["probe.static.angle.linear"].chance == 0
    assert straight["probe.static.position.linear"].value > 0.99  # the whole track follows from its start
    assert abs(straight["probe.dynamics.angle.linear"].value) < 0.1
    assert bent["probe.static.angle.linear"].value < 0.97 < bent["probe.static.angle.mlp"].value


def test_factor_of_single_frames_is_read_from_poses(found: dict[str, Score]) -> None:
    assert found["probe.pose.position.linear"].value > 0.99
    assert found["probe.pose.position.linear"].n == N * LENGTH
    assert not [name for name in found if name.startswith("probe.pose") and "position" not in name]


def test_a_network_that_has_many_frames_to_learn_from_sees_each_of_them_often() -> None:
    """On 20,000 frames 400 steps are only a few passes, which would leave half of this curve unpredicted."""
    codes = torch.randn(30_000, 6, generator=torch.Generator().manual_seed(0))
    curve = torch.sin(2 * codes[:, :1]) * codes[:, 1:2] + torch.cos(2 * codes[:, 2:3])
    predicted = fit_mlp(codes[:20_000], curve[:20_000], 0, 0)(codes[20_000:])
    assert (predicted - curve[20_000:]).square().mean() < 0.2 * curve[20_000:].var()


def test_probe_that_learns_from_shuffled_factors_is_at_chance() -> None:
    train, order = latents("train", one_hot), np.random.default_rng(3).permutation(N)
    labels = {name: values[order] for name, values in train.labels.items()}
    factors = {"angle": train.factors["angle"][order]}
    lost = dataclasses.replace(train, labels=labels, factors=factors, tracks={})
    found, _ = probe_scores(lost, latents("test-clips", one_hot), 0, kinds=("linear",))
    assert len(found) == 6
    for name, score in found.items():
        assert score.value == pytest.approx(score.chance, abs=0.1), name


def test_answers_for_other_clips_are_at_chance() -> None:
    found, shuffled = probe_scores(latents("train", one_hot), latents("test-clips", one_hot), 0, kinds=("linear",))
    assert found["probe.static.action.linear"].value > 0.99
    assert shuffled["probe.static.action.linear"].value == pytest.approx(1 / 4, abs=0.06)
    assert set(shuffled) == {name for name in found if "action" in name or "hat" in name}


def test_chance_of_an_uneven_label_is_that_of_its_most_frequent_value() -> None:
    def uneven(split: str) -> Latents:
        clips = latents(split, one_hot)
        hat = (np.random.default_rng(1).random(N) < 0.1).astype(np.int64)
        return dataclasses.replace(clips, labels={**clips.labels, "hat": hat})

    found, _ = probe_scores(uneven("train"), uneven("test-clips"), 0, kinds=("linear",))
    score = found["probe.dynamics.hat.linear"]
    assert score.chance == pytest.approx(0.9, abs=0.02)
    assert score.value == pytest.approx(score.chance, abs=0.02)


def test_clips_of_one_identity_on_both_sides_are_refused() -> None:
    with pytest.raises(ValueError, match="125 identities"):
        probe_scores(latents("train", one_hot), latents("train", one_hot), 0)


def test_same_seed_gives_the_same_probe_and_the_hidden_generator_is_left_alone() -> None:
    state = torch.random.get_rng_state()
    with rough_scores():
        first, again = (probed(one_hot, ["hat", "position"]) for _ in range(2))
    assert len(again) == 2 * 5  # two probes of two factors in two codes, and of one factor in the poses
    assert again == first
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_factor_that_does_not_vary_over_the_test_clips_is_not_probed() -> None:
    train, test = latents("train", one_hot), latents("test-clips", one_hot)
    same = dataclasses.replace(
        test,
        factors={"angle": np.full(N, 0.3)},
        tracks={"position": np.tile(np.arange(LENGTH) / 3, (N, 1))},
    )
    found, _ = probe_scores(train, same, 0, kinds=("linear",))
    assert not [name for name in found if "angle" in name or "position" in name]
    assert found["probe.static.action.linear"].value > 0.99

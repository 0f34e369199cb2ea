"""Factors of identities: a step along one changes that trait of a clip, and leaves the action and the other traits."""

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.web_studio import examples
from pipeline.web_studio.examples import Examples
from pipeline.web_studio.factors import Codes, Factor, Walk, labelled_factors, principal_factors
from pipeline.web_studio.rendering import Encoded
from pipeline.web_studio.settings import StudioSettings
from pipeline.web_studio.studio_model import StudioModel
from preprocessing.sources import figures
from preprocessing.sources.config import FiguresConfig
from preprocessing.sources.figure_motion import joints_at

GROUPS = 6
CLIP = ("figure0014", "kick")


@pytest.fixture(scope="module")
def model() -> StudioModel:
    """Return the built-in model."""
    return StudioModel(StudioSettings())


@pytest.fixture(scope="module")
def factors(model: StudioModel) -> dict[str, Factor]:
    """Return the factors that a studio finds with built-in figures."""
    found = examples.of_figures(8)
    return {factor.name: factor for factor in found.factors(model.static_codes(found.clips))}


def simplex(codes: Codes) -> Codes:
    positive = np.exp(codes.reshape(len(codes), GROUPS, -1))
    return (positive / positive.sum(2, keepdims=True)).reshape(len(codes), -1).astype(np.float32)


def mean_error(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


@pytest.mark.slow
def test_a_step_along_each_attribute_draws_the_same_figure_doing_the_same_with_the_other_value(
    model: StudioModel, factors: dict[str, Factor]
) -> None:
    """Compared with the figure that the generator draws, every pixel of every frame of which is known."""
    source = figures.FiguresSource(FiguresConfig(clip_frames=8), seed=0)
    key, action = CLIP
    figure, joints = source.figure(key), joints_at(action, source._phases(key, list(figures.ACTIONS).index(action)))
    drawn = figures.render(figure, joints)
    (reading,) = model.encode([drawn])
    assert set(factors) == {"skin", "hat", "shirt", "trousers"}, "the action is no trait of an identity"
    for name, factor in factors.items():
        value = (getattr(figure, name) + 1) % len(figures.VOCABULARY[name])
        towards = figures.VOCABULARY[name][value]
        steps = [Walk(factor, towards, amount, GROUPS).apply(reading.code.static) for amount in (0.0, 0.5, 1.0)]
        before, half, after = model.decode([(static, reading.code.dynamics, 8) for static in steps])
        expected = figures.render(dataclasses.replace(figure, **{name: value}), joints)
        changes = np.abs(expected.astype(int) - drawn.astype(int)).max((0, 3)) > 0
        assert mean_error(before, drawn) < 4, "of 255 levels of grey"
        assert mean_error(after, expected) < 5, name
        assert mean_error(after, expected) < 0.6 * mean_error(before, expected), name
        moved = np.abs(after.astype(int) - before.astype(int)).mean((0, 3))
        assert moved[changes].mean() > 4 * moved[~changes].mean(), f"{name}: what changes is where the attribute is"
        assert mean_error(before, half) > 0
        assert mean_error(half, after) > 0


def test_no_step_changes_nothing_and_every_step_stays_on_the_simplices() -> None:
    generator = np.random.default_rng(0)
    codes = simplex(3 * generator.normal(size=(50, 24)))
    found = principal_factors(codes, GROUPS)
    assert [factor.name for factor in found] == [f"part {number} of 6" for number in range(1, 7)]
    for factor in found:
        for towards in factor.ends:
            still, moved = (Walk(factor, towards, amount, GROUPS).apply(codes[0]) for amount in (0.0, 1.0))
            np.testing.assert_allclose(still, codes[0], atol=1e-6)
            assert (moved >= 0).all()
            np.testing.assert_allclose(moved.reshape(GROUPS, -1).sum(1), 1, atol=1e-6)
            changed = np.abs(moved - codes[0]).reshape(GROUPS, -1).max(1) > 1e-6
            assert changed.tolist() == [factor.name == f"part {group} of 6" for group in range(1, 7)]


def test_a_model_with_one_group_has_the_directions_in_which_its_samples_differ_most() -> None:
    generator = np.random.default_rng(0)
    codes = (np.array([3.0, 1.0, 0.1, 0.01]) * generator.normal(size=(400, 4))).astype(np.float32)
    found = principal_factors(codes, 1)
    assert [factor.name for factor in found] == [f"direction {number}" for number in range(1, 5)]
    assert [int(np.abs(factor.basis[0]).argmax()) for factor in found] == [0, 1, 2, 3]
    assert not any(factor.labelled for factor in found)


def test_an_attribute_does_not_stand_for_one_that_occurs_with_it() -> None:
    generator = np.random.default_rng(0)
    hat = generator.integers(0, 2, 200)
    shirt = np.where(generator.random(200) < 0.8, hat, 1 - hat)
    action = generator.integers(0, 3, 200)
    effects = np.eye(6)[[0, 1, 2]]
    codes = (hat[:, None] * effects[0] + shirt[:, None] * effects[1] + action[:, None] * effects[2]).astype(np.float32)
    labels = {"action": action, "hat": hat, "shirt": shirt, "same": np.zeros(200, int), "name": np.arange(200)}
    vocabulary = {name: [f"{name} {value}" for value in range(200)] for name in labels}
    found = labelled_factors(codes, labels, vocabulary)
    assert [factor.name for factor in found] == ["hat", "shirt"]
    for factor, own in zip(found, effects, strict=False):
        assert abs(factor.basis[0] @ own) > 0.99
        assert list(factor.ends) == [f"{factor.name} 0", f"{factor.name} 1"]


def test_figures_are_no_examples_for_a_model_that_does_not_know_them() -> None:
    labels = {"hat": np.arange(20) % 2}
    codes = np.random.default_rng(0).random((20, 6)).astype(np.float32)
    for own, unlike, count in ((False, True, 0), (False, False, 1), (True, True, 1)):
        found = Examples([], labels, {"hat": ["cap", "crown"]}, own)
        assert len(found.factors(Encoded(codes, np.full(20, unlike)))) == count

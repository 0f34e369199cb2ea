"""The Frechet distance between two sets of features, and its interval."""

import numpy as np
import pytest

from vdsm.evaluation.frechet import distance, frechet_score, gaussian


def by_definition(first: np.ndarray, second: np.ndarray) -> float:
    """Return the distance from the eigenvalues of the product of the covariances, which is not symmetric."""
    one, two = np.cov(first.T), np.cov(second.T)
    root = np.sqrt(np.linalg.eigvals(one @ two).astype(complex)).sum().real
    return np.square(first.mean(0) - second.mean(0)).sum() + np.trace(one) + np.trace(two) - 2 * root


def test_distance_is_that_of_the_definition() -> None:
    generator = np.random.default_rng(0)
    first = generator.normal(size=(300, 6)) @ generator.normal(size=(6, 6)) + 1
    second = generator.normal(size=(200, 6)) @ generator.normal(size=(6, 6))
    assert distance(gaussian(first), gaussian(second)) == pytest.approx(by_definition(first, second))
    assert frechet_score(first, second, np.arange(300), 0).value == pytest.approx(by_definition(first, second))


def test_known_distances() -> None:
    features = np.random.default_rng(1).normal(size=(400, 5))
    features -= features.mean(0)
    clusters = np.arange(400)
    assert frechet_score(features, features, clusters, 0).value == pytest.approx(0, abs=1e-9)
    assert frechet_score(features + np.array([3, 0, 4, 0, 0]), features, clusters, 0).value == pytest.approx(25)
    # |1 - 2|^2 of the deviation in each of five directions, whatever the rotation
    assert frechet_score(2 * features, features, clusters, 0).value == pytest.approx(np.trace(np.cov(features.T)))


def test_weights_count_a_clip_as_often_as_it_is_drawn() -> None:
    features = np.random.default_rng(2).normal(size=(30, 3))
    weights = np.random.default_rng(3).integers(0, 4, size=30)
    repeated = gaussian(np.repeat(features, weights, axis=0))
    weighted = gaussian(features, weights.astype(float))
    np.testing.assert_allclose(weighted.mean, repeated.mean)
    np.testing.assert_allclose(weighted.covariance, repeated.covariance)


def test_interval_contains_the_distance_and_grows_with_the_correlation_of_clips() -> None:
    generator = np.random.default_rng(4)
    real = generator.normal(size=(500, 4))
    ours = generator.normal(size=(40, 4)) + 1
    alone = frechet_score(ours, real, np.arange(40), 0)
    copied = frechet_score(np.repeat(ours, 10, axis=0), real, np.repeat(np.arange(40), 10), 0)
    assert alone.low < alone.value < alone.high
    assert copied.n == 400
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=0.2)
    assert frechet_score(ours, real, np.arange(40), 0) == alone


def test_features_in_which_real_clips_do_not_vary_count_too() -> None:
    """A projection onto the directions of the real clips would lose them."""
    generator = np.random.default_rng(5)
    real = np.concatenate((generator.normal(size=(300, 3)), np.zeros((300, 2))), axis=1)
    ours = np.concatenate((generator.normal(size=(300, 3)), generator.normal(size=(300, 2)) * 5), axis=1)
    assert frechet_score(ours, real, np.arange(300), 0).value == pytest.approx(50, rel=0.2)

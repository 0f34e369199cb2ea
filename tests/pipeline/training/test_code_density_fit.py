"""Fitted densities on codes whose structure is known: attributes that add up, and clusters that do not."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.training.code_density_fit import Fit, fit_code_density, mutual_information

pytestmark = pytest.mark.slow

Floats = NDArray[np.float64]
NOISE = 0.03
VALUES = (5, 5, 6)
"""Values of each attribute: 150 combinations."""
PEOPLE = 112
"""People in training: three quarters of the combinations."""


def attribute_vectors() -> list[Floats]:
    """Return the vectors [values, 9] of which a code is the sum: points in a plane for each attribute, like colours."""
    rng = np.random.default_rng(0)
    planes = np.linalg.qr(rng.normal(size=(9, 9)))[0].reshape(3, 3, 9)[:, :2] + 0.1 * rng.normal(size=(3, 2, 9))
    angles = [np.arange(values) * 2 * np.pi / values for values in VALUES]
    return [np.stack([np.cos(a), np.sin(a)], 1) @ plane for a, plane in zip(angles, planes, strict=True)]


def added_attributes(count: int, people: int, seed: int) -> tuple[Floats, NDArray[np.int64]]:
    """Return codes [N, 9] of some people, and the values of their attributes [N, 3]."""
    vectors = attribute_vectors()
    every = np.array(list(np.ndindex(VALUES)))
    rng = np.random.default_rng(seed)
    known = every[rng.permutation(len(every))[:people]]
    values = known[rng.integers(0, people, count)]
    codes = sum(vector[values[:, number]] for number, vector in enumerate(vectors))
    return codes + NOISE * rng.normal(size=codes.shape), values


def nearest(codes: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Return the distance from each code to the nearest valid one, and its number."""
    vectors = attribute_vectors()
    valid = np.array([sum(v[i] for v, i in zip(vectors, w, strict=True)) for w in np.ndindex(VALUES)])
    distances = np.linalg.norm(codes[:, None] - valid, axis=2)
    return distances.min(1), distances.argmin(1)


@pytest.fixture(scope="module")
def fit() -> Fit:
    """Fit the codes of people, of whom some have other combinations of the same attributes in validation."""
    return fit_code_density(added_attributes(1000, PEOPLE, 1)[0], added_attributes(300, 150, 2)[0], NOISE, seed=0)


def test_attributes_that_add_up_are_found_and_recombined_without_labels(fit: Fit) -> None:
    _, values = added_attributes(1000, PEOPLE, 1)
    assert len(fit.groups) > 1
    samples = fit.density.sample(2000, torch.Generator().manual_seed(0)).double().numpy()
    distance, combination = nearest(samples)
    seen = {tuple(row) for row in values.tolist()}
    drawn = {np.unravel_index(c, VALUES) for c in combination.tolist()}
    # Three standard deviations of the noise in nine directions; neighbouring values are ten times as far apart.
    assert np.mean(distance < 3 * NOISE * 9**0.5) > 0.97
    assert len(drawn) == 150
    new = np.mean([tuple(map(int, np.unravel_index(c, VALUES))) not in seen for c in combination.tolist()])
    assert 0.15 < new < 0.35  # 38 of the 150 combinations were not in training


def test_clusters_without_structure_get_one_mixture() -> None:
    rng = np.random.default_rng(3)
    centres = 4 * rng.normal(size=(6, 5))

    def draw(count: int) -> tuple[Floats, NDArray[np.int64]]:
        cluster = rng.integers(0, 6, count)
        return centres[cluster] + 0.3 * rng.normal(size=(count, 5)), cluster

    fit = fit_code_density(draw(900)[0], draw(300)[0], 0.1, seed=0)
    assert len(fit.groups) == 1
    samples = fit.density.sample(1200, torch.Generator().manual_seed(0)).double().numpy()
    distances = np.linalg.norm(samples[:, None] - centres, axis=2)
    assert np.mean(distances.min(1) < 1.5) > 0.98
    shares = np.bincount(distances.argmin(1), minlength=6) / len(samples)
    np.testing.assert_allclose(shares, 1 / 6, atol=0.05)


def test_the_same_codes_and_seed_give_the_same_density() -> None:
    codes = added_attributes(30, PEOPLE, 1)[0][:, :3]
    fits = [fit_code_density(codes, codes[:10], NOISE, seed=2) for _ in range(2)]
    first, second = (fit.density.sample(10, torch.Generator().manual_seed(0)) for fit in fits)
    assert torch.equal(first, second)


def test_one_unusual_validation_clip_does_not_change_the_groups(fit: Fit) -> None:
    codes, _ = added_attributes(1000, PEOPLE, 1)
    held, _ = added_attributes(300, 150, 2)
    held[0] += 50
    assert fit_code_density(codes, held, NOISE, seed=0).groups == fit.groups


def test_directions_outside_the_basis_are_not_sampled() -> None:
    codes, _ = added_attributes(30, PEOPLE, 1)
    basis = np.linalg.qr(np.random.default_rng(5).normal(size=(9, 4)))[0]
    density = fit_code_density(codes, codes[:10], NOISE, 0, basis).density
    deviations = density.sample(50, torch.Generator().manual_seed(0)).double().numpy() - codes.mean(0)
    np.testing.assert_allclose(deviations, deviations @ basis @ basis.T, atol=1e-5)
    assert density.mixing.shape == (9, 4)


@pytest.mark.parametrize(("count", "held", "size"), [(2, 1, 3), (3, 1, 1), (5, 2, 40), (60, 1, 2)])
def test_few_codes_give_a_density(count: int, held: int, size: int) -> None:
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(count + held, size))
    fit = fit_code_density(codes[:count], codes[count:], 0.1, seed=0)
    assert torch.isfinite(fit.density.sample(20, torch.Generator().manual_seed(0))).all()


def test_equal_codes_give_a_density() -> None:
    codes = np.ones((30, 4))
    samples = fit_code_density(codes, codes[:5], 0.1, seed=0).density.sample(20, torch.Generator().manual_seed(0))
    torch.testing.assert_close(samples, torch.ones(20, 4), atol=1e-3, rtol=0)


def test_mutual_information_is_that_of_the_table_of_counts() -> None:
    rng = np.random.default_rng(1)
    shared = rng.normal(size=400)
    factors = np.stack([shared, shared + 0.1 * rng.normal(size=400), rng.normal(size=400)], 1)
    found = mutual_information(factors)
    for i, j in itertools.combinations(range(3), 2):
        expected = 0.0
        first, second = (np.argsort(np.argsort(factors[:, n])) // 50 for n in (i, j))
        for a, b in itertools.product(range(8), repeat=2):
            p = np.mean((first == a) & (second == b))
            expected += p * np.log(p * 64) if p else 0.0
        assert found[i, j] == pytest.approx(expected)
    assert found[0, 1] > 1 > 0.2 > found[0, 2]


def test_the_module_reads_no_labels(root: Path) -> None:
    for name in ("code_density_fit", "code_priors"):
        assert ".labels" not in (root / "pipeline" / "training" / f"{name}.py").read_text()

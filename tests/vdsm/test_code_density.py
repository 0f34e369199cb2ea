"""The density of a code against SciPy and against sums over its components; damaged ones are refused."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from tests.vdsm.tiny_models import tiny_model
from vdsm import checkpoint
from vdsm.code_density import Block, CodeDensity, FittedPriors
from vdsm.disentangler import Disentangler

SIZE, COORDINATES = 5, 3


def random_density(size: int = SIZE, coordinates: int = COORDINATES, seed: int = 0) -> CodeDensity:
    """Return a density of two blocks, one of them over the first and the last coordinate."""
    generator = torch.Generator().manual_seed(seed)

    def block(members: list[int], components: int) -> Block:
        d = len(members)
        factors = 0.3 * torch.randn(components, d, d, generator=generator).tril() + torch.eye(d)
        weights = torch.rand(components, generator=generator) + 0.2
        means = 3 * torch.randn(components, d, generator=generator)
        return Block(torch.tensor(members), weights / weights.sum(), means, factors)

    mean, mixing = torch.randn(size, generator=generator), torch.randn(size, coordinates, generator=generator)
    return CodeDensity(mean, mixing, (block([0, coordinates - 1], 3), block(list(range(1, coordinates - 1)), 2)))


def every_component(density: CodeDensity) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Return weight, mean and covariance over the code of each combination of the blocks' components."""
    found = []
    for chosen in itertools.product(*(range(len(block.weights)) for block in density.blocks)):
        mean, covariance, weight = np.zeros(density.mixing.shape[1]), np.zeros((density.mixing.shape[1],) * 2), 1.0
        for block, component in zip(density.blocks, chosen, strict=True):
            rows = block.coordinates.numpy()
            factor = block.cholesky[component].double().numpy()
            mean[rows] = block.means[component]
            covariance[np.ix_(rows, rows)] = factor @ factor.T
            weight *= float(block.weights[component])
        mixing = density.mixing.double().numpy()
        found.append((weight, density.mean.double().numpy() + mixing @ mean, mixing @ covariance @ mixing.T))
    return found


def test_log_density_of_a_code_with_fewer_coordinates_is_scipys_of_each_combination_of_components() -> None:
    density = random_density()
    codes = density.sample(7, torch.Generator().manual_seed(1))
    expected = [
        np.log(
            sum(
                weight * stats.multivariate_normal(mean, covariance, allow_singular=True).pdf(code)
                for weight, mean, covariance in every_component(density)
            )
        )
        for code in codes.double().numpy()
    ]
    np.testing.assert_allclose(density.log_prob(codes), expected, rtol=1e-3, atol=1e-3)


def test_samples_have_the_mean_and_covariance_of_the_mixture() -> None:
    density = random_density(seed=4)
    codes = density.sample(200_000, torch.Generator().manual_seed(2)).double().numpy()
    components = every_component(density)
    mean = sum(weight * location for weight, location, _ in components)
    covariance = sum(
        weight * (spread + np.outer(location - mean, location - mean)) for weight, location, spread in components
    )
    scale = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(codes.mean(0) / scale, mean / scale, atol=0.02)
    np.testing.assert_allclose(np.cov(codes.T) / np.outer(scale, scale), covariance / np.outer(scale, scale), atol=0.02)


def test_the_same_generator_gives_the_same_samples() -> None:
    density = random_density()
    first, second = (density.sample(4, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, density.sample(4, torch.Generator().manual_seed(4)))


def model_with_priors() -> Disentangler:
    model = tiny_model(static_groups=2)
    model.fitted_priors = FittedPriors(
        random_density(model.config.num_experts, 4), random_density(model.config.dynamics_size, 3)
    )
    return model


def test_a_model_samples_its_fitted_priors_and_without_them_the_published_ones() -> None:
    model = model_with_priors()
    priors = model.fitted_priors
    assert priors is not None
    assert priors.dynamics is not None

    def seeded() -> torch.Generator:
        return torch.Generator().manual_seed(5)

    latent = priors.static.sample(3, seeded())
    assert torch.equal(model.sample_static(3, seeded()), model.frame_model.static_code(latent, model.temperature))
    assert torch.equal(model.sample_dynamics(3, seeded()), priors.dynamics.sample(3, seeded()))
    generator = seeded()
    static, dynamics = model.sample_static(3, generator).double(), model.sample_dynamics(3, generator).double()
    expected = model.decode(model.poses(dynamics, 6), static)
    assert torch.equal(model.sample_prior(3, 6, seeded()), expected)
    fitted = model.sample_static(3, seeded())
    model.fitted_priors = None
    assert not torch.equal(model.sample_static(3, seeded()), fitted)


def saved(model: Disentangler, priors: Any, path: Path) -> Path:
    content = {
        checkpoint.MODEL_CONFIG: model.config.__dict__, checkpoint.WEIGHTS: model.state_dict(),
        checkpoint.PRIORS: priors,
    }  # fmt: skip
    checkpoint.save(content, path)
    return path


def test_a_checkpoint_keeps_the_priors(tmp_path: Path) -> None:
    model = model_with_priors()
    assert model.fitted_priors is not None
    loaded = checkpoint.load_disentangler(saved(model, model.fitted_priors.to_dict(), tmp_path / "model.pt"))
    first, second = (m.sample_static(5, torch.Generator().manual_seed(0)) for m in (model, loaded))
    assert torch.equal(first, second)
    assert loaded.fitted_priors is not None
    assert loaded.fitted_priors.dynamics is not None
    no_dynamics = FittedPriors(model.fitted_priors.static)
    loaded = checkpoint.load_disentangler(saved(model, no_dynamics.to_dict(), tmp_path / "stage1.pt"))
    assert loaded.fitted_priors is not None
    assert loaded.fitted_priors.dynamics is None


def without_mean(content: dict[str, Any]) -> None:
    del content["static"]["mean"]


def wrong_size(content: dict[str, Any]) -> None:
    content["static"] = random_density(SIZE, COORDINATES).to_dict()


def uncovered_coordinate(content: dict[str, Any]) -> None:
    content["static"]["blocks"] = content["static"]["blocks"][:1]


def index_out_of_range(content: dict[str, Any]) -> None:
    content["static"]["blocks"][0]["coordinates"] += 10


def no_tensor(content: dict[str, Any]) -> None:
    content["static"]["mixing"] = [[1.0]]


def negative_weights(content: dict[str, Any]) -> None:
    content["static"]["blocks"][0]["weights"] *= -1


def no_static(content: dict[str, Any]) -> None:
    del content["static"]


@pytest.mark.parametrize(
    "damage",
    [without_mean, wrong_size, uncovered_coordinate, index_out_of_range, no_tensor, negative_weights, no_static],
)
def test_damaged_priors_are_one_error_that_names_the_checkpoint(damage: Any, tmp_path: Path) -> None:
    model = model_with_priors()
    assert model.fitted_priors is not None
    content = model.fitted_priors.to_dict()
    damage(content)
    path = saved(model, content, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt: does not fit this version.*fitted prior") as caught:
        checkpoint.load_disentangler(path)
    assert "\n" not in str(caught.value)


def test_samples_are_double_where_the_model_is(tmp_path: Path) -> None:
    clips: Tensor = model_with_priors().sample_prior(2, 3, torch.Generator().manual_seed(0))
    assert clips.dtype == torch.float64

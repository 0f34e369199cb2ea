"""The pixel likelihoods: proper densities around the decoder's mean, with a scale that cannot vanish."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.vdsm.tiny_models import CLIPS, LENGTH, tiny_case, tiny_config, tiny_model
from vdsm.annealing import un_annealed
from vdsm.config import MIN_PIXEL_SCALE
from vdsm.likelihood import FIRST_SCALE, Likelihood

DENSITIES: list[dict[str, Any]] = [
    {"likelihood": "gaussian"},
    {"likelihood": "laplace"},
    {"likelihood": "gaussian", "likelihood_scale": 0.05},
    {"likelihood": "laplace", "likelihood_scale": 0.3},
]
DENSITY = pytest.mark.parametrize("settings", DENSITIES, ids=lambda s: " ".join(map(str, s.values())))


def likelihood(settings: dict[str, Any]) -> Likelihood:
    return Likelihood(tiny_config(**settings)).double()


def pixel(value: float) -> Tensor:
    return torch.full((1, 1, 1, 1, 1), value, dtype=torch.float64)


@DENSITY
def test_the_density_of_a_pixel_integrates_to_one(settings: dict[str, Any]) -> None:
    distribution = likelihood(settings)(pixel(0.4))
    grid = torch.linspace(-8, 9, 170_001, dtype=torch.float64)
    log_probs = distribution.base_dist.log_prob(grid.view(-1, 1, 1, 1, 1, 1)).flatten()
    assert torch.trapezoid(log_probs.exp(), grid).item() == pytest.approx(1, abs=1e-6)
    mean = torch.trapezoid(grid * log_probs.exp(), grid).item()
    expected = 0.6 if settings["likelihood"] == "laplace" else 1 / (1 + math.exp(-0.4))
    assert mean == pytest.approx(expected, abs=1e-6)


def test_the_scale_is_a_standard_deviation_or_a_mean_deviation() -> None:
    grid = torch.linspace(-8, 9, 170_001, dtype=torch.float64)
    for kind, power in (("gaussian", 2), ("laplace", 1)):
        distribution = likelihood({"likelihood": kind, "likelihood_scale": 0.2})(pixel(0.0))
        probabilities = distribution.base_dist.log_prob(grid.view(-1, 1, 1, 1, 1, 1)).flatten().exp()
        deviation = torch.trapezoid((grid - 0.5).abs() ** power * probabilities, grid) ** (1 / power)
        assert deviation.item() == pytest.approx(0.2, rel=1e-5)


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_a_learned_scale_is_best_at_the_error_of_the_means(kind: str) -> None:
    model = likelihood({"likelihood": kind})
    generator = torch.Generator().manual_seed(0)
    logits, frames = torch.rand((2, 3, 2, 1, 8, 8), generator=generator, dtype=torch.float64)
    error = (frames - (torch.sigmoid(logits) if kind == "gaussian" else 0.5 + logits / 4)).abs()
    best = error.square().mean().sqrt() if kind == "gaussian" else error.mean()
    with torch.no_grad():
        model.raw_scale.copy_(torch.log(torch.expm1(best - MIN_PIXEL_SCALE)))
    model(logits).log_prob(frames).sum().backward()
    assert model.scale(frames).item() == pytest.approx(best.item(), rel=1e-12)
    assert model.raw_scale.grad is not None
    assert abs(model.raw_scale.grad.item()) < 1e-9


def test_a_location_outside_the_range_of_pixels_keeps_its_gradient() -> None:
    model, logits = likelihood({"likelihood": "laplace"}), pixel(-40.0).requires_grad_()
    assert model.mean(logits).item() == 0
    (slope,) = torch.autograd.grad(model(logits).log_prob(pixel(0.04)).sum(), logits)
    assert slope.item() == pytest.approx(0.25 / FIRST_SCALE, rel=1e-6)


def test_a_learned_scale_starts_wide_and_stays_above_one_step_of_a_pixel() -> None:
    model = likelihood({"likelihood": "gaussian"})
    assert model.scale(pixel(0)).item() == pytest.approx(FIRST_SCALE, rel=1e-6)
    torch.nn.init.constant_(model.raw_scale, -1e4)
    assert model.scale(pixel(0)).item() == pytest.approx(MIN_PIXEL_SCALE)
    assert torch.isfinite(model(pixel(30.0)).log_prob(pixel(0.0))).all()


@pytest.mark.parametrize("settings", [{}, *DENSITIES[2:]])
def test_a_likelihood_that_learns_no_scale_has_no_parameter(settings: dict[str, Any]) -> None:
    assert not list(likelihood(settings).parameters())


@pytest.mark.parametrize("settings", [{}, *DENSITIES], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_confident_wrong_logits_give_finite_terms(settings: dict[str, Any], dtype: torch.dtype) -> None:
    logits = torch.tensor([-200.0, -20.0, 0.0, 20.0, 200.0], dtype=dtype).view(1, 5, 1, 1, 1).requires_grad_()
    for value in (0.0, 0.3, 1.0):
        density = likelihood(settings).float()(logits).log_prob(torch.full((1, 5, 1, 1, 1), value))
        assert density.dtype == torch.float32
        assert torch.isfinite(density).all()
        assert torch.isfinite(torch.autograd.grad(density.sum(), logits)[0]).all()


@DENSITY
def test_frames_lie_between_0_and_1_with_any_likelihood(settings: dict[str, Any]) -> None:
    model = tiny_model(**settings)
    frames = tiny_case(1).frames
    for pictures in (
        model.reconstruct(frames),
        model.rollout(frames, LENGTH + 1),
        model.sample_prior(2, 3, torch.Generator().manual_seed(0)),
    ):
        assert ((pictures >= 0) & (pictures <= 1)).all()


@pytest.mark.parametrize("stage", [1, 2])
def test_both_stages_learn_the_scale(stage: int) -> None:
    case = tiny_case(stage, likelihood="laplace")
    case.model(case.frames, case.noise, un_annealed(3.0)).loss.backward()
    frame_model = case.model if stage == 1 else case.model.frame_model
    assert frame_model.likelihood.raw_scale.grad.abs() > 0
    assert case.frames.shape[0] == CLIPS

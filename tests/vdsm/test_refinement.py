"""Refinement of static codes, against the equations of Adam on an independent density, and its properties."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.vdsm import oracle
from tests.vdsm.tiny_models import tiny_case, tiny_model
from vdsm.disentangler import Disentangler
from vdsm.refinement import refine_static

pytestmark = pytest.mark.slow

STEPS, TEMPERATURE = 3, 2.0


@pytest.fixture(params=[{}, {"static_groups": 3}, {"likelihood": "gaussian"}], ids=["plain", "groups", "gaussian"])
def model(request: pytest.FixtureRequest) -> Disentangler:
    model = tiny_model(static_prior_scale=0.3, **request.param)
    model.temperature = TEMPERATURE
    return model


@pytest.fixture
def frames() -> Tensor:
    """Provide two clips of eight frames: the steps alternate between the even and the odd ones."""
    case = tiny_case(1)
    return torch.cat([case.frames, case.frames.flip(-1)], dim=1)[:2]


def refined_by_hand(p: dict[str, Tensor], config: Any, frames: Tensor, poses: Tensor, latent: Tensor) -> Tensor:
    """Refine one clip by Adam (Kingma and Ba 2015) spelt out, in steps of an eighth of the prior's scale."""
    mean, square = torch.zeros_like(latent), torch.zeros_like(latent)
    for step in range(1, STEPS + 1):
        latent = latent.detach().requires_grad_()
        static = oracle.softmax_groups(config, latent, TEMPERATURE)
        times = [(step - 1) % 2 + even for even in (0, 2, 4, 6)]
        density = oracle.estimated_likelihood(p, config, frames, list(poses), static, times)
        density = density + oracle.log_normal(latent, oracle.static_prior(config))
        (gradient,) = torch.autograd.grad(density, latent)
        mean, square = 0.9 * mean - 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        update = (mean / (1 - 0.9**step)) / (torch.sqrt(square / (1 - 0.999**step)) + 1e-8)
        latent = latent - config.static_prior_scale / 8 * update
    return latent.detach()


@pytest.mark.parametrize("by", ["dynamics", "poses"])
def test_codes_are_refined_by_adam_on_the_density(model: Disentangler, frames: Tensor, by: Any) -> None:
    before = model.encode(frames)
    model.refinement_steps, model.refined_by = STEPS, by
    codes = model.encode(frames)
    poses = before.pose if by == "poses" else model.poses(before.dynamics, frames.shape[1])
    assert torch.equal(codes.pose, before.pose)
    assert torch.equal(codes.dynamics, before.dynamics)
    p = {name: parameter.detach() for name, parameter in model.frame_model.named_parameters()}
    for clip in range(len(frames)):
        start = oracle.pool(p, [oracle.encode(p, model.config, frame) for frame in frames[clip]]).loc
        latent = refined_by_hand(p, model.config, frames[clip], poses[clip], start)
        expected = oracle.softmax_groups(model.config, latent, TEMPERATURE)
        torch.testing.assert_close(codes.static[clip], expected, rtol=1e-8, atol=1e-11)
        assert (codes.static[clip] - before.static[clip]).abs().max() > 1e-3


def test_refined_codes_explain_their_clip_better(model: Disentangler, frames: Tensor) -> None:
    codes = model.encode(frames)
    stage1 = model.frame_model
    latent, _ = stage1.pool_static(stage1.encoder(frames))

    def density(latent: Tensor) -> Tensor:
        static = stage1.static_code(latent, TEMPERATURE)
        likelihood = stage1.likelihood(stage1.decoder(codes.pose, static)).log_prob(frames)
        return likelihood - 0.5 * (latent / stage1.static_prior_scale).square().sum(-1)

    with torch.no_grad():
        densities = [
            density(refine_static(stage1, frames, codes.pose, latent, TEMPERATURE, steps)) for steps in (0, 5, 20)
        ]
    assert (densities[1] > densities[0]).all()
    assert (densities[2] > densities[1]).all()


def test_a_clip_is_refined_independently_of_the_others_and_in_any_mode(model: Disentangler, frames: Tensor) -> None:
    model.refinement_steps = STEPS
    both = model.encode(frames).static
    alone = torch.cat([model.encode(frame[None]).static for frame in frames])
    torch.testing.assert_close(both, alone, rtol=1e-9, atol=1e-12)
    with torch.inference_mode():
        assert torch.equal(model.encode(frames.clone()).static, both)


def test_refinement_does_not_change_the_model(model: Disentangler, frames: Tensor) -> None:
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.refinement_steps = STEPS
    static = model.encode(frames).static
    assert not static.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in state.items())
    assert math.isfinite(static.sum())

"""Under bfloat16 autocast both stages compute all distributions in float32, and stay near float32 in value."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution

from tests.vdsm.tiny_models import Case, tiny_case
from vdsm.annealing import Weights

STAGE = pytest.mark.parametrize("stage", [1, 2])
WEIGHTS = Weights(pose=0.37, static=2.3, dynamics=1.9, temperature=3.1, pose_distillation=0.6)
RELATIVE_BOUND = 0.02
"""bfloat16 keeps 8 bits; a term may differ from float32 by this much, relative to itself."""


def single(case: Case) -> Case:
    noise = type(case.noise)(*(part.float() for part in case.noise))
    return Case(case.model.float(), case.frames.float(), noise)


def autocast(case: Case, *, enabled: bool = True) -> Any:
    return torch.autocast(case.frames.device.type, dtype=torch.bfloat16, enabled=enabled)


def gradient(case: Case) -> Tensor:
    return torch.cat([p.grad.flatten() for p in case.model.parameters() if p.grad is not None])


@STAGE
def test_terms_and_gradient_stay_near_those_of_float32(stage: int) -> None:
    results = []
    for enabled in (False, True):
        case = single(tiny_case(stage))
        with autocast(case, enabled=enabled):
            terms = case.terms(WEIGHTS)
        terms.loss.backward()
        results.append((terms, gradient(case)))
    (exact, exact_gradient), (rough, rough_gradient) = results
    for name, value in rough._asdict().items():
        assert value.dtype == torch.float32, name
        expected = getattr(exact, name).item()
        assert value.item() == pytest.approx(expected, rel=RELATIVE_BOUND, abs=1e-12), name
    assert not torch.equal(rough.reconstruction, exact.reconstruction), (
        "autocast had no effect, so this test shows nothing"
    )
    assert rough_gradient.dtype == torch.float32
    assert torch.cosine_similarity(rough_gradient, exact_gradient, dim=0) > 0.999


@STAGE
def test_every_distribution_is_in_float32(stage: int) -> None:
    case = single(tiny_case(stage))
    with autocast(case):
        guide, model = case.traces(3.0)
    sites = [(name, node) for trace in (guide, model) for name, node in trace.nodes.items() if "log_prob" in node]
    checked = 0
    for name, node in sites:
        if name == "clips":
            continue
        assert node["value"].dtype == node["log_prob"].dtype == torch.float32, name
        for parameter in parameters_of(node["fn"], node["value"]):
            assert parameter.dtype == torch.float32, name
            checked += 1
    assert checked >= 2 * (3 if stage == 1 else 4)


def parameters_of(distribution: Distribution, value: Tensor) -> list[Tensor]:
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    if hasattr(distribution, "conditionals"):
        distribution = distribution.conditionals(value)
    names = [name for name in ("loc", "scale", "logits") if name in vars(distribution)]
    return [getattr(distribution, name) for name in names]


@STAGE
def test_a_scale_stays_above_its_bound_under_autocast(stage: int) -> None:
    # In bfloat16 the smallest scale would be lost in any sum, and softplus(-30) is 0.
    case = single(tiny_case(stage))
    frame_model = case.model if stage == 1 else case.model.frame_model
    layers = [frame_model.encoder.pose_scale, frame_model.static_raw_scale]
    if stage == 2:
        layers += [case.model.dynamics_encoder.raw_scale, case.model.combiner.raw_scale]
    for layer in layers:
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.constant_(layer.bias, -30.0)
    with autocast(case):
        terms = case.terms(WEIGHTS)
        guide, _ = case.traces(3.0)
    names = set(guide.stochastic_nodes) - {"clips"}
    assert len(names) == (2 if stage == 1 else 3)
    for name in names:
        _, *scales = parameters_of(guide.nodes[name]["fn"], guide.nodes[name]["value"])
        assert len(scales) == 1
        assert all((scale >= 1e-4 * (1 - 1e-6)).all() for scale in scales), name
    assert all(torch.isfinite(value) for value in terms)

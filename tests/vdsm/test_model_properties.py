"""Properties of both stages that hold for any parameters (float64)."""

import math
from itertools import combinations
from typing import Any

import pyro.infer
import pytest
import torch
from pyro import poutine
from torch.distributions import kl_divergence

from tests.vdsm import oracle_sequence
from tests.vdsm.tiny_models import CLIPS, LENGTH, Case, double, per_clip, pick, tiny_case
from vdsm.annealing import Weights, un_annealed
from vdsm.config import ModelConfig
from vdsm.decoder import ExpertTransposedConv
from vdsm.distributions import GaussianChain
from vdsm.encoder import ImageEncoder
from vdsm.frames import draw_frames
from vdsm.loss import LossTerms

ONES = un_annealed(3.0)
STAGE = pytest.mark.parametrize("stage", [1, 2])


def terms_of(case: Case, weights: Weights = ONES) -> LossTerms:
    return case.terms(weights)


def part(case: Case, clips: list[int]) -> Case:
    return Case(case.model, case.frames[clips], pick(case.noise, clips))


def make_constant(layer: Any, value: float | None) -> None:
    """Make a layer output `value` after softplus and the smallest scale; none: output 0."""
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.constant_(layer.bias, 0.0 if value is None else math.log(math.expm1(value - 1e-4)))


@STAGE
def test_kl_is_zero_when_the_guide_is_the_prior(stage: int) -> None:
    case = tiny_case(stage)
    frame_model = case.model if stage == 1 else case.model.frame_model
    constants: list[tuple[Any, float | None]] = [
        (frame_model.encoder.pose_loc, None),
        (frame_model.encoder.pose_scale, 1.0),
        (frame_model.static_loc, None),
        (frame_model.static_raw_scale, 1 / 6),
    ]
    if stage == 2:
        model = case.model
        constants += [(model.dynamics_encoder.loc, None), (model.dynamics_encoder.raw_scale, 1 / 4)]
        constants += [(model.combiner.loc, None), (model.combiner.raw_scale, 1.0), (model.transition.step, None)]
        constants += [(model.transition.proposed[2], None), (model.transition.raw_scale, 1.0)]
    for layer, value in constants:
        make_constant(layer, value)
    terms = terms_of(case)
    for kl in (terms.kl_static, terms.kl_pose, terms.kl_dynamics):
        assert abs(kl.item()) < 1e-15
    assert terms.loss.item() == pytest.approx(terms.reconstruction.item(), rel=1e-12)


def test_static_consistency_is_zero_for_clips_of_the_same_frames() -> None:
    case, weights = tiny_case(1), ONES._replace(static_consistency=5.0)
    alike = case._replace(frames=torch.cat([case.frames[:, :2], case.frames[:, :2].flip(1)], dim=1))
    assert terms_of(alike, weights).static_consistency.abs() < 1e-15
    assert terms_of(case, weights).static_consistency > 1e-8
    assert terms_of(case).static_consistency == 0  # a regulariser without weight is not computed


def test_motion_consistency_is_zero_for_what_does_not_move() -> None:
    case, weights = tiny_case(1), ONES._replace(motion_consistency=5.0)
    still = case._replace(
        frames=case.frames[:, :1].expand_as(case.frames), noise=case.noise._replace(pose=0 * case.noise.pose)
    )
    assert terms_of(still, weights).motion_consistency.abs() < 1e-15
    assert terms_of(case, weights).motion_consistency > 1e-6
    assert terms_of(case).motion_consistency == 0  # a regulariser without weight is not computed


def test_pose_distillation_is_zero_where_dynamics_drive_the_poses_of_stage_1() -> None:
    case, weights = tiny_case(2), ONES._replace(pose_distillation=5.0)
    assert terms_of(case, weights).pose_distillation > 1e-8
    assert terms_of(case).pose_distillation == 0  # a regulariser without weight is not computed
    encoder = case.model.frame_model.encoder
    for loc, scale in (
        (encoder.pose_loc, encoder.pose_scale),
        (case.model.combiner.loc, case.model.combiner.raw_scale),
    ):
        make_constant(loc, None)
        make_constant(scale, 0.5)
    assert terms_of(case, weights).pose_distillation.abs() < 1e-15


def test_kl_of_a_chain_with_itself_is_zero_and_with_another_is_not() -> None:
    case = tiny_case(2)
    first, other = torch.randn(2, CLIPS, 4, generator=torch.Generator().manual_seed(0)).double()
    chain = case.model.prior_chain(first, LENGTH, case.noise.pose)
    chain.rsample()
    assert kl_divergence(chain, case.model.prior_chain(first, LENGTH)).abs().max() < 1e-12
    assert (kl_divergence(chain, case.model.prior_chain(other, LENGTH)) > 1e-4).all()


@STAGE
@pytest.mark.parametrize("name", ["pose", "static", "dynamics"])
def test_loss_is_linear_in_each_weight_with_the_kl_as_slope(stage: int, name: str) -> None:
    case = tiny_case(stage)
    plain = terms_of(case)
    assert plain.loss.item() == pytest.approx(plain.negative_elbo.item(), rel=1e-14)
    for weight in (0.25, 7.5):
        terms = terms_of(case, ONES._replace(**{name: weight}))
        slope = getattr(plain, f"kl_{name}").item()
        assert terms.loss.item() - plain.loss.item() == pytest.approx((weight - 1) * slope, rel=1e-10, abs=1e-14)
        assert terms[1:] == plain[1:]


@STAGE
def test_temperature_changes_the_reconstruction_only(stage: int) -> None:
    case = tiny_case(stage)
    cold, hot = terms_of(case), terms_of(case, ONES._replace(temperature=9.0))
    assert cold[2:] == hot[2:]
    assert cold.reconstruction != hot.reconstruction


@STAGE
def test_order_of_clips_does_not_matter(stage: int) -> None:
    case, order = tiny_case(stage), [2, 0, 1]
    permuted = part(case, order)
    torch.testing.assert_close(terms_of(permuted), terms_of(case), rtol=1e-12, atol=1e-15)
    before, after = per_clip(case, 3.0), per_clip(permuted, 3.0)
    torch.testing.assert_close(after.likelihood, before.likelihood[order], rtol=1e-12, atol=0)
    for name in before.kl:
        torch.testing.assert_close(after.kl[name], before.kl[name][order], rtol=1e-12, atol=1e-12)


@STAGE
def test_terms_of_a_batch_are_the_mean_of_its_clips_alone(stage: int) -> None:
    case = tiny_case(stage)
    alone = [terms_of(part(case, [clip])) for clip in range(CLIPS)]
    means = [torch.stack(values).mean() for values in zip(*alone, strict=True)]
    torch.testing.assert_close(list(terms_of(case)), means, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("layer", "size"), [(0, 1), (1, 4), (2, 8), (3, 16)])
def test_a_one_hot_blend_is_that_expert_alone(layer: int, size: int) -> None:
    conv: ExpertTransposedConv = tiny_case(1).model.decoder.layers[layer]
    x = torch.randn(CLIPS, LENGTH, conv.shape[0], size, size, generator=torch.Generator().manual_seed(0)).double()
    experts = [4, 0, 3]
    blended = conv(x, torch.eye(6).double()[experts])
    for clip, expert in enumerate(experts):
        kernel, bias = conv.kernels[expert].view(conv.shape), conv.biases[expert]
        stride, padding = (1, 0) if layer == 0 else (2, 1)
        alone = torch.nn.functional.conv_transpose2d(x[clip], kernel, bias, stride, padding)
        torch.testing.assert_close(blended[clip], alone, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", ["prior_chain", "guide_chain"])
def test_parallel_transitions_equal_sequential_ones(kind: str) -> None:
    case = tiny_case(2)
    dynamics = torch.randn(CLIPS, 4, generator=torch.Generator().manual_seed(0)).double()
    chain: GaussianChain = getattr(case.model, kind)(dynamics, LENGTH, case.noise.pose)
    path = chain.rsample()
    stepwise, at_once = chain.conditionals(path), chain.conditionals(path.clone())
    torch.testing.assert_close(at_once.loc, stepwise.loc, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(at_once.scale, stepwise.scale, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(path, stepwise.loc + stepwise.scale * case.noise.pose, rtol=1e-12, atol=1e-12)
    # Density of a path: the standardised steps are the noise, and the scales the change of volume.
    density = -0.5 * case.noise.pose**2 - stepwise.scale.log() - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(chain.log_prob(path.clone()), density.sum((1, 2)), rtol=1e-10, atol=1e-10)


@STAGE
def test_analytic_kl_is_the_mean_of_the_log_ratio(stage: int) -> None:
    case, draws = tiny_case(stage, channels=1), 500
    frames = case.frames[:1, :2].expand(draws, -1, -1, -1, -1)
    noise = double(case.model.draw_noise(draws, 2, torch.Generator().manual_seed(1)))
    with torch.no_grad():
        sites = per_clip(Case(case.model, frames, noise), 3.0)
    for name, kl in sites.kl.items():
        error = sites.guide[name] - sites.model[name] - kl
        deviation = error.std() / math.sqrt(draws)
        assert error.mean().abs() < 4 * deviation, name
        assert deviation < 0.2 * kl.mean(), f"{name}: too few draws to decide"


@STAGE
def test_plain_elbo_is_that_of_pyro(stage: int) -> None:
    case = tiny_case(stage)

    def model() -> None:
        case.model.model(case.frames, ONES.temperature)

    loss: Any = pyro.infer.TraceMeanField_ELBO().differentiable_loss(model, case.guide)
    expected = loss / case.frames.numel()
    terms = terms_of(case)
    assert terms.loss.item() == pytest.approx(expected.item(), rel=1e-12)
    trained = [parameter for parameter in case.model.parameters() if parameter.requires_grad]
    for ours, theirs in zip(
        torch.autograd.grad(terms.loss, trained), torch.autograd.grad(expected, trained), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-15)


@STAGE
def test_a_reconstruction_of_some_frames_is_an_unbiased_estimate_of_all(stage: int) -> None:
    case = tiny_case(stage)
    subsets = [torch.tensor(pair).expand(CLIPS, -1) for pair in combinations(range(LENGTH), 2)]
    some = [terms_of(case._replace(decoded=subset)) for subset in subsets]
    every, mean = terms_of(case), LossTerms(*torch.stack([torch.stack(terms) for terms in some]).mean(0))
    for name, value in every._asdict().items():
        assert getattr(mean, name).item() == pytest.approx(value.item(), rel=1e-12), name
    assert len({terms.reconstruction.item() for terms in some}) == len(subsets)


def test_the_frames_decoded_are_drawn_evenly_and_without_repetition() -> None:
    clips, generator = 3000, torch.Generator().manual_seed(0)
    first, second = draw_frames(clips, 5, 2, generator).T
    assert (first < second).all()
    # Ten pairs of five frames, each 300 times, within four standard deviations.
    counts = torch.bincount(5 * first + second)
    counts = counts[counts > 0]
    assert len(counts) == 10
    assert (counts - 300).abs().max() < 4 * math.sqrt(clips * 0.1 * 0.9)
    state = generator.get_state()
    for count in (5, None):
        assert torch.equal(draw_frames(clips, 5, count, generator), torch.arange(5).expand(clips, -1))
    assert torch.equal(generator.get_state(), state)  # nothing drawn


@STAGE
def test_the_model_without_data_draws_from_the_prior(stage: int) -> None:
    case, clips, length = tiny_case(stage, channels=1), 300, 3
    frames = case.frames.new_zeros(clips, length, 1, 32, 32)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        nodes = poutine.trace(poutine.uncondition(case.model.model)).get_trace(frames, 3.0).nodes
    standard = {"static": 6 * nodes["static"]["value"], "pose": nodes["pose"]["value"]}
    if stage == 2:
        p = {name: parameter.detach() for name, parameter in case.model.named_parameters()}
        standard["dynamics"] = 4 * nodes["dynamics"]["value"]
        for clip in range(clips):
            path = nodes["pose"]["value"][clip].clone()
            for time in range(1, length):
                prior = oracle_sequence.transition(p, path[time - 1], nodes["dynamics"]["value"][clip])
                standard["pose"][clip, time] = (path[time] - prior.loc) / prior.scale
    for name, value in standard.items():
        assert abs(value.mean().item()) < 4 / math.sqrt(value.numel()), name
        assert value.std().item() == pytest.approx(1, abs=4 / math.sqrt(2 * value.numel())), name
    drawn, means = nodes["frames"]["value"], nodes["frames"]["fn"].mean
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert drawn.mean().item() == pytest.approx(means.mean().item(), abs=4 * 0.5 / math.sqrt(drawn.numel()))


@pytest.mark.parametrize(("settings", "low", "high"), [({}, 0, 0.02), ({"encoder_init": "he"}, 0.2, 2)])
def test_he_initialisation_preserves_differences_between_frames_through_the_encoder(
    settings: dict[str, Any], low: float, high: float
) -> None:
    torch.manual_seed(0)
    encoder = ImageEncoder(ModelConfig(num_experts=4, decoder_channels=(8, 8, 8, 8), **settings))
    generator = torch.Generator().manual_seed(0)
    # Smooth images: independent pixels would average out in any filter.
    frames = torch.nn.functional.interpolate(torch.rand(64, 3, 4, 4, generator=generator), (64, 64), mode="bilinear")
    with torch.no_grad():
        hidden = encoder.activation(encoder.to_hidden(encoder.blocks(frames)))
    assert low < float(hidden.std(0).mean() / frames.std(0).mean()) < high

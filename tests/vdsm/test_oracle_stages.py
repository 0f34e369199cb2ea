"""Both stages agree with a slow computation from the equations, in every term and every gradient (float64)."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from tests.vdsm import oracle, oracle_sequence
from tests.vdsm.tiny_models import CLIPS, LENGTH, Case, PerClip, per_clip, tiny_case
from vdsm.annealing import Weights
from vdsm.config import REGULARISERS
from vdsm.loss import LossTerms

WEIGHTS = Weights(pose=0.37, static=2.3, dynamics=1.9, temperature=3.1)
TOLERANCE = 1e-8

CONFIGS: dict[str, dict[str, Any]] = {
    "as published": {},
    "three groups, strided encoder, shared start": {
        "static_groups": 3,
        "expert_init": "shared",
        "encoder_downsampling": "stride",
    },
    "grey, three groups, own prior scales": {
        "static_groups": 3,
        "channels": 1,
        "static_prior_scale": 0.7,
        "dynamics_prior_scale": 0.3,
        "encoder_slope": 0.3,
    },
    "grey, strided encoder, shared start": {"channels": 1, "encoder_downsampling": "stride", "expert_init": "shared"},
    "learned Gaussian, normalised decoder": {"likelihood": "gaussian", "decoder_normalisation": "layer"},
    "fixed Gaussian, grey": {"likelihood": "gaussian", "likelihood_scale": 0.2, "channels": 1},
    "learned Laplace, three groups": {"likelihood": "laplace", "static_groups": 3},
    "fixed Laplace": {"likelihood": "laplace", "likelihood_scale": 0.3},
    "64 pixels": {"frame_size": 64, "encoder_channels": (3, 4, 3, 4), "decoder_channels": (5, 4, 3, 3)},
}


class Both(NamedTuple):
    """The same quantities computed by the package and by the oracle."""

    case: Case
    terms: LossTerms
    sites: PerClip
    clips: list[oracle.Clip]
    loss: Tensor
    gradients: dict[str, Tensor]
    """By name: the gradients of the oracle, for the parameters that the stage trains."""


@pytest.fixture(scope="module", params=[1, 2], ids=["stage 1", "stage 2"])
def stage(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


def noise_of(case: Case, clip: int) -> dict[str, Tensor]:
    """Return the noise of one clip, by the name of its latent."""
    return {name: part[clip] for name, part in case.noise._asdict().items()}


def by_oracle(case: Case, stage: int) -> tuple[oracle.Parameters, list[oracle.Clip]]:
    """Return copies of the parameters, and the results of the oracle for each clip computed from them."""
    parameters = {
        name: parameter.detach().clone().requires_grad_(parameter.requires_grad)
        for name, parameter in case.model.named_parameters()
    }
    one_clip = oracle.frame_clip if stage == 1 else oracle_sequence.sequence_clip
    clips = [
        one_clip(
            parameters,
            case.model.config,
            case.frames[clip],
            noise_of(case, clip),
            list(range(LENGTH)) if case.decoded is None else case.decoded[clip].tolist(),
            WEIGHTS.temperature,
        )
        for clip in range(CLIPS)
    ]
    return parameters, clips


@pytest.fixture(scope="module", params=list(CONFIGS.values()), ids=list(CONFIGS))
def both(request: pytest.FixtureRequest, stage: int) -> Both:
    case = tiny_case(stage, **request.param)
    terms = case.terms(WEIGHTS)
    terms.loss.backward()
    sites = per_clip(case, WEIGHTS.temperature)

    parameters, clips = by_oracle(case, stage)
    loss = oracle.loss(clips, WEIGHTS._asdict(), case.frames[0].numel())
    loss.backward()
    gradients = {name: value.grad for name, value in parameters.items() if value.grad is not None}
    return Both(case, terms, sites, clips, loss, gradients)


def assert_close(actual: Tensor, expected: Tensor, what: str) -> None:
    """Assert equality within the tolerance, relative to the largest element."""
    assert actual.shape == expected.shape, what
    assert actual.dtype == torch.float64, what
    error = (actual - expected).abs().max() / expected.abs().max()
    assert error < TOLERANCE, f"{what}: relative error {error:.2g}"


def assert_gradients_close(case: Case, parameters: oracle.Parameters) -> None:
    """Assert that the gradients of all parameters trained by the stage are close to those of the oracle."""
    for name, parameter in case.model.named_parameters():
        if parameter.requires_grad:
            assert_close(parameter.grad, parameters[name].grad, f"gradient of {name}")


def test_likelihood_of_each_clip(both: Both) -> None:
    assert_close(both.sites.likelihood, torch.stack([clip.likelihood for clip in both.clips]), "log p(x | ...)")


def test_log_probability_of_each_latent_of_each_clip(both: Both, stage: int) -> None:
    assert set(both.sites.guide) == {"static", "pose"} | ({"dynamics"} if stage == 2 else set())
    for name in both.sites.guide:
        expected = [clip.sites[name] for clip in both.clips]
        assert_close(both.sites.guide[name], torch.stack([site.guide for site in expected]), f"log q({name})")
        assert_close(both.sites.model[name], torch.stack([site.model for site in expected]), f"log p({name})")


def test_kl_of_each_latent_of_each_clip(both: Both) -> None:
    for name, kl in both.sites.kl.items():
        assert_close(kl, torch.stack([clip.sites[name].kl for clip in both.clips]), f"KL of {name}")
        assert (kl > 0).all()


def test_terms_are_per_pixel_value_and_averaged_over_clips(both: Both, stage: int) -> None:
    values = both.case.frames[0].numel() * CLIPS
    assert_close(
        both.terms.reconstruction,
        -torch.stack([clip.likelihood for clip in both.clips]).sum() / values,
        "reconstruction",
    )
    for name in both.clips[0].sites:
        expected = torch.stack([clip.sites[name].kl for clip in both.clips]).sum() / values
        assert_close(getattr(both.terms, f"kl_{name}"), expected, f"kl_{name}")
    if stage == 1:
        assert both.terms.kl_dynamics == 0


def test_annealed_loss(both: Both) -> None:
    assert_close(both.terms.loss, both.loss, "loss")


@pytest.mark.slow
def test_gradient_of_every_parameter(both: Both) -> None:
    trained = {name: value for name, value in both.case.model.named_parameters() if value.requires_grad}
    assert trained.keys() == both.gradients.keys()
    for name, parameter in trained.items():
        assert both.gradients[name].abs().max() > 0, f"the loss does not depend on {name}"
        assert_close(parameter.grad, both.gradients[name], f"gradient of {name}")


def test_frozen_parameters_get_no_gradient(both: Both, stage: int) -> None:
    frozen = {name for name, value in both.case.model.named_parameters() if value.grad is None}
    if stage == 1:
        assert frozen == set()
    else:
        assert {name.split(".")[1] for name in frozen} == {"encoder", "decoder"}
        assert all(name.startswith("frame_model.") for name in frozen)


REGULARISER_CONFIGS: list[dict[str, Any]] = [{}, {"static_groups": 3, "encoder_downsampling": "stride"}]


def motion_of_clip(case: Case, parameters: oracle.Parameters, clip: int) -> Tensor:
    """Return the motion consistency of a clip: a distance of distributions, not nats that its values share."""
    partner, frames = (1, 0, 0)[clip], case.frames[clip]
    other = case.frames[partner], noise_of(case, partner)
    config, temperature = case.model.config, WEIGHTS.temperature
    distance = oracle.motion_consistency(parameters, config, frames, noise_of(case, clip), other, temperature)
    return frames.numel() * distance


def regulariser_by_oracle(name: str, case: Case, parameters: oracle.Parameters) -> Tensor:
    """Return a regulariser in nats per pixel value, averaged over the clips."""
    config = case.model.config
    per_clip = []
    for clip, frames in enumerate(case.frames):
        noise = noise_of(case, clip)
        if name == "static_consistency":
            value = oracle.static_consistency(parameters, config, frames)
        elif name == "motion_consistency":
            value = motion_of_clip(case, parameters, clip)
        elif name == "dynamics_consistency":
            value = oracle_sequence.dynamics_consistency(
                parameters, config, frames, noise["other_static"], WEIGHTS.temperature
            )
        else:
            value = oracle_sequence.pose_distillation(parameters, config, frames, noise)
        per_clip.append(value)
    return torch.stack(per_clip).mean() / case.frames[0].numel()


@pytest.mark.parametrize("changes", REGULARISER_CONFIGS)
@pytest.mark.parametrize(
    ("stage", "weights"),
    [
        (1, {"static_consistency": 0.8}),
        (1, {"motion_consistency": 0.7}),
        (1, {"static_consistency": 0.8, "motion_consistency": 0.7}),
        (2, {"dynamics_consistency": 0.8}),
        (2, {"pose_distillation": 0.6}),
        (2, {"dynamics_consistency": 0.8, "pose_distillation": 0.6}),
    ],
    ids=str,
)
def test_regularisers_are_named_in_the_result_and_part_of_the_loss_and_its_gradients(
    stage: int, weights: dict[str, float], changes: dict[str, Any]
) -> None:
    case = tiny_case(stage, **changes)
    terms = case.terms(WEIGHTS._replace(**weights))
    terms.loss.backward()
    parameters, clips = by_oracle(case, stage)
    loss = oracle.loss(clips, WEIGHTS._asdict(), case.frames[0].numel())
    for name in REGULARISERS:
        if name in weights:
            expected = regulariser_by_oracle(name, case, parameters)
            assert_close(getattr(terms, name), expected, name)
            loss = loss + weights[name] * expected
        else:
            assert getattr(terms, name) == 0, name
    loss.backward()
    assert_close(terms.loss, loss, "loss")
    assert_gradients_close(case, parameters)


@pytest.mark.parametrize("tolerance", [1e-5, 1e-3, 1.0])
def test_pairs_that_differ_count_less_in_the_loss_and_its_gradients(tolerance: float) -> None:
    case = tiny_case(1)
    weights = WEIGHTS._replace(static_consistency=0.8, motion_consistency=0.7, pair_tolerance=tolerance)
    terms = case.terms(weights)
    terms.loss.backward()
    parameters, clips = by_oracle(case, 1)
    values, losses, divergences = case.frames[0].numel(), [], []
    for number, clip in enumerate(clips):
        divergence = oracle.static_consistency(parameters, case.model.config, case.frames[number])
        moved = motion_of_clip(case, parameters, number)
        own = oracle.loss([clip], weights._asdict(), values) + (0.8 * divergence + 0.7 * moved) / values
        losses.append(own / (1 + divergence.detach() / tolerance))
        divergences.append(divergence.detach())
    loss = torch.stack(losses).mean()
    loss.backward()
    assert_close(terms.loss, loss, "loss")
    assert_close(terms.static_consistency, torch.stack(divergences).mean() / values, "term, which is not weighed")
    assert_gradients_close(case, parameters)


def test_some_frames_decoded_and_their_gradients(stage: int) -> None:
    case = tiny_case(stage)
    case = case._replace(decoded=torch.tensor([[0, 3], [1, 2], [2, 3]]))
    terms = case.terms(WEIGHTS)
    terms.loss.backward()
    parameters, clips = by_oracle(case, stage)
    loss = oracle.loss(clips, WEIGHTS._asdict(), case.frames[0].numel())
    loss.backward()
    assert_close(terms.loss, loss, "loss")
    assert_gradients_close(case, parameters)


@pytest.mark.parametrize("seen", [1, 3])
def test_codes_that_are_inferred_from_the_first_frames_drive_all_of_them(seen: int) -> None:
    case = tiny_case(2)
    weights = WEIGHTS._replace(dynamics_consistency=0.8, pose_distillation=0.6)
    terms = case.model(case.frames, case.noise, weights, None, seen)
    terms.loss.backward()
    parameters = {
        name: parameter.detach().clone().requires_grad_(parameter.requires_grad)
        for name, parameter in case.model.named_parameters()
    }
    config, values = case.model.config, case.frames[0].numel()
    clips, consistency, distillation = [], [], []
    for clip, frames in enumerate(case.frames):
        noise = noise_of(case, clip)
        times = list(range(LENGTH))
        clips.append(oracle_sequence.sequence_clip(parameters, config, frames, noise, times, weights.temperature, seen))
        consistency.append(
            oracle_sequence.dynamics_consistency(
                parameters, config, frames[:seen], noise["other_static"], weights.temperature
            )
        )
        distillation.append(oracle_sequence.pose_distillation(parameters, config, frames, noise, seen))
    loss = oracle.loss(clips, WEIGHTS._asdict(), values)
    for name, of_clips in (("dynamics_consistency", consistency), ("pose_distillation", distillation)):
        expected = torch.stack(of_clips).mean() / values
        assert_close(getattr(terms, name), expected, name)
        loss = loss + getattr(weights, name) * expected
    loss.backward()
    assert_close(terms.loss, loss, "loss")
    assert_gradients_close(case, parameters)

"""Adaptation to a person, against slow computations and against what it must leave alone."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vdsm.adaptation import BLEND_RATE, Adaptation, AdaptationConfig, apply, fit, is_adapted
from vdsm.code_density import Block, CodeDensity, FittedPriors
from vdsm.config import ModelConfig
from vdsm.decoder import SLOPE, KernelShift
from vdsm.disentangler import Disentangler

CONFIG = ModelConfig(
    num_experts=6, static_groups=2, pose_size=3, dynamics_size=4, frame_size=32, encoder_channels=(4, 4, 4),
    encoder_hidden=8, static_hidden=8, decoder_channels=(6, 5, 4), rnn_width=8, rnn_layers=1, expert_init="shared",
)  # fmt: skip
QUICK = AdaptationConfig(static_steps=3, decoder_steps=5, anchor=1e-3, batch_frames=3, learning_rate=1e-2)


@pytest.fixture
def model() -> Disentangler:
    torch.manual_seed(4)
    return Disentangler(CONFIG).eval()


@pytest.fixture
def frames() -> Tensor:
    """Return frames of one look: a dark red wall that brightens to the right, and noise."""
    noise = 0.1 * torch.rand(9, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    return noise + torch.tensor([0.5, 0.1, 0.1])[:, None, None] * torch.linspace(0.2, 1, 32)


def random_shifts(model: Disentangler, scale: float = 0.1) -> tuple[KernelShift, ...]:
    generator = torch.Generator().manual_seed(7)
    return tuple(
        KernelShift(
            *(scale * torch.randn(part.shape[1:], generator=generator) for part in (layer.kernels, layer.biases))
        )
        for layer in model.frame_model.decoder.layers
    )


def slow_decode(model: Disentangler, pose: Tensor, static: Tensor, shifts: Sequence[KernelShift]) -> Tensor:
    """Decode one pose [Z] and static code [K]: blend the experts one by one, add the shift, convolve one image."""
    x = torch.cat([pose, static])[None, :, None, None]
    for index, (layer, shift) in enumerate(zip(model.frame_model.decoder.layers, shifts, strict=True)):
        kernels, biases = shift.kernels.clone(), shift.biases.clone()
        for expert, weight in enumerate(static):
            kernels += weight * layer.kernels[expert]
            biases += weight * layer.biases[expert]
        x = F.leaky_relu(x, SLOPE) if index else x
        stride, padding = (1, 0) if index == 0 else (2, 1)
        x = F.conv_transpose2d(x, kernels.view(*layer.shape), biases, stride, padding)
    return x[0]


def test_a_shift_is_added_to_every_blend_and_can_be_built_into_the_experts(model: Disentangler) -> None:
    decoder, shifts = model.frame_model.decoder, random_shifts(model)
    generator = torch.Generator().manual_seed(1)
    pose = torch.randn(2, 4, 3, generator=generator)
    static = model.frame_model.static_code(torch.randn(2, 6, generator=generator), 3.0)
    with torch.no_grad():
        shifted = decoder(pose, static, shifts)
        for clip in range(2):
            for time in range(4):
                slow = slow_decode(model, pose[clip, time], static[clip], shifts)
                torch.testing.assert_close(shifted[clip, time], slow, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(shifted, decoder(pose, static), atol=1e-2)
        decoder.add_shifts(shifts)
        torch.testing.assert_close(decoder(pose, static), shifted, atol=1e-5, rtol=1e-5)


def loss_of_shifts(
    model: Disentangler, frames: Tensor, latent: Tensor, shifts: Sequence[KernelShift], anchor: float
) -> float:
    """Return the objective in its definition, over all frames, one at a time."""
    poses = model.frame_model.encoder(frames[None]).pose_loc[0]
    static = model.frame_model.static_code(latent, model.temperature)[0]
    total = 0.0
    for pose, frame in zip(poses, frames, strict=True):
        mean = torch.sigmoid(slow_decode(model, pose, static, shifts))
        total -= float((frame * mean.log() + (1 - frame) * (1 - mean).log()).mean())
    size = sum(float(part.square().sum()) for shift in shifts for part in shift)
    return total / len(frames) + anchor * size


def test_the_first_step_goes_down_the_gradient_of_the_objective_by_finite_differences(
    model: Disentangler, frames: Tensor
) -> None:
    """Adam's first step is the learning rate against the sign of the gradient: of the blends, then of the shift."""
    model, frames = model.double(), frames[:1].double()
    config = replace(QUICK, static_steps=0, decoder_steps=1, batch_frames=2)
    fitted = fit(model, frames, config)
    none = tuple(KernelShift(*map(torch.zeros_like, shift)) for shift in fitted.shifts)

    def slope(layer: int, *change: Tensor) -> float:
        """Return the derivative of the objective along a change; at no shift, that of the anchor is 0."""
        near = []
        for sign in (1, -1):
            moved = list(none)
            moved[layer] = KernelShift(*(sign * 1e-4 * part for part in change))
            near.append(loss_of_shifts(model, frames, fitted.static, moved, config.anchor))
        return (near[0] - near[1]) / 2e-4

    with torch.no_grad():
        checked = 0
        for number, (layer, shift) in enumerate(zip(model.frame_model.decoder.layers, fitted.shifts, strict=True)):
            experts = [slope(number, layer.kernels[expert], layer.biases[expert]) for expert in range(6)]
            blend = -BLEND_RATE * config.learning_rate * torch.tensor(experts, dtype=torch.float64).sign()
            rest = (shift.kernels - blend @ layer.kernels, shift.biases - blend @ layer.biases)
            for part, values in enumerate(rest):
                assert values.abs().max() == pytest.approx(config.learning_rate, rel=1e-2)
                entry = int(values.abs().argmax())
                change = [torch.zeros_like(one) for one in rest]
                change[part][entry] = 1
                assert float(values[entry]) * slope(number, *change) < 0
                checked += 1
        assert checked == 2 * len(none)


def test_fitting_brings_the_frames_closer_and_leaves_the_model_unchanged(model: Disentangler, frames: Tensor) -> None:
    before = copy.deepcopy(model.state_dict())
    fitted = fit(model, frames, replace(QUICK, decoder_steps=40))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    error = (model.reconstruct(frames[None]) - frames).square().mean()
    apply(model, fitted)
    assert (model.reconstruct(frames[None]) - frames).square().mean() < 0.9 * error
    changed = {name for name, value in model.state_dict().items() if not torch.equal(before[name], value)}
    stage1 = "sequence_model.frame_model."
    assert {name for name in changed if not name.startswith(f"{stage1}decoder.")} == {
        f"{stage1}static_loc.weight", f"{stage1}static_loc.bias",
    }  # fmt: skip


def test_an_adapted_model_shows_the_person_whatever_clip_is_encoded(model: Disentangler, frames: Tensor) -> None:
    assert not is_adapted(model)
    fitted = fit(model, frames, QUICK)
    apply(model, fitted)
    others = torch.rand(2, 4, 3, 32, 32)
    code = model.frame_model.static_code(fitted.static, model.temperature)
    torch.testing.assert_close(model.encode(others).static, code.expand(2, -1))
    assert is_adapted(model)
    dynamics_of = torch.rand(2, 4, 3, 32, 32)
    swapped = model.swap(dynamics_of=dynamics_of, static_of=others)
    assert torch.equal(swapped, model.swap(dynamics_of=dynamics_of, static_of=others.flip(0)))
    assert not torch.equal(swapped[0], swapped[1])


def test_samples_of_an_adapted_model_show_the_person(model: Disentangler, frames: Tensor) -> None:
    eye, blocks = torch.eye(6), (Block(torch.arange(6), torch.ones(1), torch.zeros(1, 6), torch.eye(6)[None]),)
    model.fitted_priors = FittedPriors(CodeDensity(torch.zeros(6), eye, blocks))
    fitted = fit(model, frames, QUICK)
    apply(model, fitted)
    sampled = model.sample_static(5, torch.Generator().manual_seed(0))
    code = model.frame_model.static_code(fitted.static, model.temperature)
    torch.testing.assert_close(sampled, code.expand(5, -1), atol=1e-4, rtol=0)
    stored = FittedPriors.from_dict(model.fitted_priors.to_dict(), 6, 4)
    torch.testing.assert_close(stored.static.mean, fitted.static[0])


def test_samples_of_an_adapted_model_without_fitted_priors_show_the_person_as_well(
    model: Disentangler, frames: Tensor
) -> None:
    assert model.fitted_priors is None
    fitted = fit(model, frames, QUICK)
    apply(model, fitted)
    code = model.frame_model.static_code(fitted.static, model.temperature)
    sampled = model.sample_static(5, torch.Generator().manual_seed(0))
    torch.testing.assert_close(sampled, code.expand(5, -1), atol=1e-4, rtol=0)


def test_a_strong_anchor_leaves_blends_of_the_experts_alone_and_none_lets_the_shift_go(
    model: Disentangler, frames: Tensor
) -> None:
    def beyond(anchor: float) -> float:
        """Return the squared size of the part of the shifts that is no blend of experts."""
        shifts = fit(model, frames, replace(QUICK, decoder_steps=150, anchor=anchor, learning_rate=3e-3)).shifts
        total = 0.0
        for layer, shift in zip(model.frame_model.decoder.layers, shifts, strict=True):
            experts = torch.cat([layer.kernels, layer.biases], dim=1).detach().T
            whole = torch.cat(shift)[:, None]
            total += float((whole - experts @ torch.linalg.lstsq(experts, whole).solution).square().sum())
        return total

    free, weak, strong = beyond(0.0), beyond(1e-3), beyond(10.0)
    assert strong < 0.01 * free
    assert weak < free


def give_poses(model: Disentangler, frames: Tensor, poses: Tensor) -> None:
    """Replace the image encoder by one that sees these poses [1, T, Z] in the frames."""
    with torch.no_grad():
        known = model.frame_model.encoder(frames[None])._replace(pose_loc=poses)
    model.frame_model.encoder.forward = lambda _: known  # type: ignore[method-assign]


@pytest.mark.slow
def test_a_person_who_is_another_blend_in_each_layer_is_found_in_all_poses(model: Disentangler) -> None:
    decoder, generator = model.frame_model.decoder, torch.Generator().manual_seed(3)
    with torch.no_grad():
        other = tuple(
            KernelShift(
                *((0.5 * torch.randn(1, 6, generator=generator) @ part)[0] for part in (layer.kernels, layer.biases))
            )
            for layer in decoder.layers
        )
        static = model.frame_model.static_code(torch.zeros(1, 6), model.temperature)
        seen, unseen = torch.randn(2, 1, 40, 3, generator=generator)
        frames = torch.sigmoid(decoder(seen, static, other))[0]
        expected = torch.sigmoid(decoder(unseen, static, other))
    give_poses(model, frames, seen)
    config = replace(QUICK, decoder_steps=400, anchor=10.0, learning_rate=3e-3, batch_frames=20)
    fitted = fit(model, frames, config)
    with torch.no_grad():
        code = model.frame_model.static_code(fitted.static, model.temperature)
        before, after = (torch.sigmoid(decoder(unseen, code, shifts)) for shifts in (None, fitted.shifts))
    assert (after - expected).square().mean() < 0.05 * (before - expected).square().mean()


def test_the_same_clips_and_seed_give_the_same_fit_and_other_seeds_another(model: Disentangler, frames: Tensor) -> None:
    def kernels(seed: int) -> Tensor:
        return fit(model, frames, replace(QUICK, seed=seed)).shifts[1].kernels

    assert torch.equal(kernels(0), kernels(0))
    assert not torch.equal(kernels(0), kernels(1))


def test_without_steps_nothing_but_the_encoders_static_code_is_used(model: Disentangler, frames: Tensor) -> None:
    fitted = fit(model, frames, replace(QUICK, static_steps=0, decoder_steps=0))
    with torch.no_grad():
        latents = model.frame_model.encoder(frames[None])
        assert torch.equal(fitted.static, model.frame_model.pool_static(latents)[0])
    assert all(float(part.abs().max()) == 0 for shift in fitted.shifts for part in shift)
    assert isinstance(fitted, Adaptation)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"static_steps": -1}, "static_steps is -1"),
        ({"decoder_steps": -1}, "decoder_steps is -1"),
        ({"anchor": -0.1}, "anchor is -0.1"),
        ({"batch_frames": 0}, "batch_frames is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdaptationConfig(**settings)  # type: ignore[arg-type]

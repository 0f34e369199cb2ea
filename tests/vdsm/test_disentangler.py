"""Inference with the trained model: its methods agree with each other. Each stage trains only its own parameters."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.vdsm import oracle, oracle_sequence
from tests.vdsm.tiny_models import CLIPS, LENGTH, double, tiny_case, tiny_model
from vdsm.annealing import un_annealed
from vdsm.disentangler import Disentangler


@pytest.fixture(scope="module", params=[1, 3], ids=["one group", "three groups"])
def model(request: pytest.FixtureRequest) -> Disentangler:
    return tiny_model(static_groups=request.param)


@pytest.fixture(scope="module")
def frames() -> Tensor:
    return tiny_case(1).frames


def parameters(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in module.named_parameters()}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_codes_are_the_posterior_means(model: Disentangler, frames: Tensor) -> None:
    codes = model.encode(frames)
    p, q = parameters(model.frame_model), parameters(model.sequence_model)
    for clip in range(CLIPS):
        encoded = [oracle.encode(p, model.config, frame) for frame in frames[clip]]
        locs = [pose.loc for pose, _, _ in encoded]
        static = oracle.softmax_groups(model.config, oracle.pool(p, encoded).loc, 10.0)
        torch.testing.assert_close(codes.static[clip], static, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(codes.pose[clip], torch.stack(locs), rtol=1e-9, atol=1e-12)
        dynamics = oracle_sequence.encode_dynamics(q, model.config, locs).loc
        torch.testing.assert_close(codes.dynamics[clip], dynamics, rtol=1e-9, atol=1e-12)


def test_poses_are_the_means_of_the_chain_one_after_another(model: Disentangler, frames: Tensor) -> None:
    dynamics = model.encode(frames).dynamics
    poses = model.poses(dynamics, 6)
    p = parameters(model.sequence_model)
    for clip in range(CLIPS):
        previous = p["combiner.first_pose"][0]
        for time, rnn in enumerate(oracle_sequence.decode_dynamics(p, model.config, dynamics[clip], 6)):
            previous = oracle_sequence.combine(p, previous, rnn, dynamics[clip]).loc
            torch.testing.assert_close(poses[clip, time], previous, rtol=1e-9, atol=1e-12)


def test_decode_gives_the_mean_of_each_pixel(model: Disentangler, frames: Tensor) -> None:
    codes = model.encode(frames)
    decoded = model.decode(codes.pose, codes.static)
    p = parameters(model.frame_model)
    for clip in range(CLIPS):
        expected = oracle.decode(p, model.config, codes.pose[clip, -1], codes.static[clip])
        torch.testing.assert_close(decoded[clip, -1], expected, rtol=1e-9, atol=1e-12)
    assert decoded.shape == frames.shape
    assert ((decoded >= 0) & (decoded <= 1)).all()


def test_reconstruction_decodes_a_clip_from_its_own_codes(model: Disentangler, frames: Tensor) -> None:
    codes = model.encode(frames)
    assert torch.equal(model.reconstruct(frames), model.decode(codes.pose, codes.static))


def test_swap_of_a_clip_with_itself_decodes_its_own_dynamics(model: Disentangler, frames: Tensor) -> None:
    codes = model.encode(frames)
    expected = model.decode(model.poses(codes.dynamics, LENGTH), codes.static)
    assert torch.equal(model.swap(dynamics_of=frames, static_of=frames), expected)


def test_swap_takes_poses_from_one_clip_and_the_static_code_from_the_other(model: Disentangler, frames: Tensor) -> None:
    others = frames.flip(0)[:, :3]
    swapped = model.swap(dynamics_of=frames, static_of=others)
    expected = model.decode(model.poses(model.encode(frames).dynamics, LENGTH), model.encode(others).static)
    assert torch.equal(swapped, expected)
    assert not torch.allclose(swapped, model.swap(dynamics_of=frames, static_of=frames), atol=1e-6)


def test_poses_past_the_trained_length_continue_the_shorter_ones(model: Disentangler) -> None:
    dynamics = model.sample_dynamics(CLIPS, seeded(0)).double()
    short, long = model.poses(dynamics, 5), model.poses(dynamics, 9)
    assert long.shape == (CLIPS, 9, model.config.pose_size)
    torch.testing.assert_close(short, long[:, :5], rtol=0, atol=1e-12)


def test_static_codes_lie_on_the_simplex_of_each_group(model: Disentangler, frames: Tensor) -> None:
    for codes in (model.encode(frames).static, model.sample_static(50, seeded(1))):
        assert (codes > 0).all()
        sums = codes.reshape(len(codes), model.config.static_groups, -1).sum(-1)
        torch.testing.assert_close(sums, torch.ones_like(sums))


def test_temperature_sharpens_static_codes(frames: Tensor) -> None:
    model = tiny_model()
    sharp = model.encode(frames).static
    model.temperature = 1.0
    soft = model.encode(frames).static
    torch.testing.assert_close(sharp, torch.softmax(10 * soft.log(), dim=-1))
    assert (sharp.amax(-1) > soft.amax(-1)).all()


def test_samples_follow_the_prior_and_the_seed(model: Disentangler) -> None:
    for sample, size in ((model.sample_static, 6), (model.sample_dynamics, 4)):
        assert torch.equal(sample(5, seeded(1)), sample(5, seeded(1)))
        assert not torch.equal(sample(5, seeded(1)), sample(5, seeded(2)))
        assert sample(5, seeded(1)).shape == (5, size)
    dynamics = model.sample_dynamics(4000, seeded(3))
    assert dynamics.std().item() == pytest.approx(1 / 4, rel=0.04)
    assert dynamics.mean().item() == pytest.approx(0, abs=0.01)
    # Differences of log-probabilities within a group are 10 * (i_a - i_b), with scale 10 * sqrt(2) / 6.
    logs = model.sample_static(4000, seeded(4)).log().reshape(4000, model.config.static_groups, -1)
    assert (logs[..., 0] - logs[..., 1]).std().item() == pytest.approx(10 * 2**0.5 / 6, rel=0.05)


def test_inference_keeps_no_gradient_and_leaves_the_global_generator_alone(model: Disentangler, frames: Tensor) -> None:
    state = torch.get_rng_state()
    codes = model.encode(frames)
    results = [*codes, model.reconstruct(frames), model.poses(codes.dynamics, 3)]
    results += [model.swap(dynamics_of=frames, static_of=frames), model.sample_static(2, seeded(0))]
    assert not any(result.requires_grad for result in results)
    assert torch.equal(torch.get_rng_state(), state)


def test_stage_2_trains_all_but_image_encoder_and_decoder() -> None:
    model = tiny_model()
    stage: Any = model.prepare_stage(2)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    parts = ("sequence_model.frame_model.encoder.", "sequence_model.frame_model.decoder.")
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith(parts)}
    assert frozen

    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    batch = tiny_case(2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    stage(batch.frames, batch.noise, un_annealed(3.0)).loss.backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == (name in frozen), name
        assert (parameter.grad is None) == (name in frozen), name


def test_preparing_stage_1_unfreezes_what_stage_2_froze() -> None:
    model = tiny_model()
    model.prepare_stage(2)
    stage: Any = model.prepare_stage(1)
    assert stage is model.frame_model
    assert all(parameter.requires_grad for parameter in model.parameters())
    batch = tiny_case(1)
    stage(batch.frames, batch.noise, un_annealed(3.0)).loss.backward()
    assert all(parameter.grad is not None for parameter in model.frame_model.parameters())


@pytest.mark.parametrize("number", [1, 2])
def test_same_seed_gives_the_same_noise_and_bit_for_bit_the_same_loss(number: int) -> None:
    case = tiny_case(number)
    first, again, other = (case.model.draw_noise(CLIPS, LENGTH, seeded(seed)) for seed in (7, 7, 8))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    losses = [case.model(case.frames, double(noise), un_annealed(3.0)).loss.item() for noise in (first, again, other)]
    assert losses[0] == losses[1] != losses[2]


def test_rollout_decodes_the_poses_of_the_clip_past_its_end(model: Disentangler, frames: Tensor) -> None:
    codes = model.encode(frames)
    long = model.rollout(frames, LENGTH + 5)
    assert long.shape == (CLIPS, LENGTH + 5, *frames.shape[2:])
    torch.testing.assert_close(long, model.decode(model.poses(codes.dynamics, LENGTH + 5), codes.static))
    torch.testing.assert_close(model.rollout(frames, 2), long[:, :2])


def test_static_interpolation_is_linear_from_one_code_to_the_other(model: Disentangler) -> None:
    first, second = (model.sample_static(CLIPS, seeded(seed)).double() for seed in (1, 2))
    path = model.interpolate_static(first, second, 5)
    assert path.shape == (CLIPS, 5, model.config.num_experts)
    assert torch.equal(path[:, 0], first)
    assert torch.equal(path[:, -1], second)
    torch.testing.assert_close(path[:, 2], (first + second) / 2)
    torch.testing.assert_close(path.diff(dim=1), ((second - first) / 4)[:, None].expand(-1, 4, -1))
    assert (path > 0).all()
    with pytest.raises(ValueError, match="steps is 1; an interpolation needs at least 2, its ends"):
        model.interpolate_static(first, second, 1)


def test_clips_of_the_prior_follow_the_seed_and_the_transitions(model: Disentangler) -> None:
    clips = model.sample_prior(CLIPS, 6, seeded(1))
    assert clips.shape == (CLIPS, 6, model.config.channels, 32, 32)
    assert ((clips >= 0) & (clips <= 1)).all()
    assert torch.equal(clips, model.sample_prior(CLIPS, 6, seeded(1)))
    assert not torch.equal(clips, model.sample_prior(CLIPS, 6, seeded(2)))
    # The same draws, one time step after another.
    generator = seeded(1)
    static = model.sample_static(CLIPS, generator).double()
    dynamics = model.sample_dynamics(CLIPS, generator).double()
    noise = torch.randn(CLIPS, 6, model.config.pose_size, generator=generator).double()
    p, q = parameters(model.frame_model), parameters(model.sequence_model)
    for clip in range(CLIPS):
        pose = noise[clip, 0]
        for time in range(6):
            if time > 0:
                prior = oracle_sequence.transition(q, pose, dynamics[clip])
                pose = prior.loc + prior.scale * noise[clip, time]
            expected = oracle.decode(p, model.config, pose, static[clip])
            torch.testing.assert_close(clips[clip, time], expected, rtol=1e-9, atol=1e-12)

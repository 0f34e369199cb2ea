"""The metrics tell truth from error: models whose scores are known beforehand get them."""

import numpy as np
import pytest
import torch

from vdsm.evaluation.cycle import donor_rank
from vdsm.evaluation.outputs import HIGHEST_PSNR, fidelity
from vdsm.evaluation.protocol import ProtocolConfig, measure

CONFIG = ProtocolConfig(clip_frames=4, pairs=192, batch_clips=20)
ATTRIBUTES = ("colour", "side")


@pytest.fixture(scope="module")
def perfect(renderer, test_clips, judge):
    return measure(renderer, test_clips, judge, CONFIG)


def value(measured, name):
    return measured.scores[name].value


def test_perfect_renderer_scores_100_and_leaks_nothing(perfect):
    for kind in ("swap", "pose_swap"):
        assert value(perfect, f"{kind}.action.accuracy") == 1
        assert value(perfect, f"{kind}.static.joint") == 1
        for name in ("action", *ATTRIBUTES):
            assert value(perfect, f"{kind.removesuffix('swap')}leakage.{name}") == 0
    assert perfect.scores["swap.action.accuracy"].n == 192
    assert perfect.scores["swap.action.accuracy"].chance == pytest.approx(1 / 4, abs=0.01)
    assert len(perfect.swapped.wrong) == 0
    assert {np.trace(np.array(matrix)) for matrix in perfect.swapped.confusion.values()} == {192}


def test_perfect_renderer_keeps_what_is_kept_when_the_rest_is_drawn_from_the_prior(perfect):
    assert value(perfect, "prior.static.action.accuracy") == 1
    assert value(perfect, "prior.dynamics.static.joint") == 1
    for name in ("prior.dynamics.leakage.action", "prior.static.leakage.colour", "prior.static.leakage.side"):
        score = perfect.scores[name]
        assert score.value == pytest.approx(score.chance, abs=0.12), name
    assert value(perfect, "is") == pytest.approx(4, abs=0.2)


def test_perfect_renderer_reconstructs_and_a_still_picture_does_not(perfect):
    assert value(perfect, "reconstruction.mse") == 0
    assert value(perfect, "reconstruction.psnr") == HIGHEST_PSNR
    assert value(perfect, "reconstruction.ssim") == pytest.approx(1)
    assert value(perfect, "consistency.action") == 1
    assert value(perfect, "still.psnr") < 30
    assert value(perfect, "cycle.static") > 0.97


def test_model_that_ignores_the_static_code_has_a_perfect_action_and_is_caught(
    wrong_renderer, draw_square, test_clips, judge
):
    """The field's table has this model as perfect: the attributes stand beside the action for that reason."""
    measured = measure(wrong_renderer(lambda static, action: draw_square(1, 1, 1, action)), test_clips, judge, CONFIG)
    assert value(measured, "swap.action.accuracy") == 1
    assert value(measured, "is") == pytest.approx(4, abs=0.2)
    assert value(measured, "swap.static.joint") < 0.25
    for name in ATTRIBUTES:
        score = measured.scores[f"swap.static.{name}.accuracy"]
        assert score.value == pytest.approx(score.chance, abs=0.12), name
    assert value(measured, "cycle.static") == pytest.approx(0.5, abs=0.1)
    assert len(measured.swapped.wrong) > 100


def test_model_that_ignores_the_dynamics_code_is_caught(wrong_renderer, draw_square, test_clips, judge):
    measured = measure(wrong_renderer(lambda static, action: draw_square(*static, 2)), test_clips, judge, CONFIG)
    assert value(measured, "swap.static.joint") == 1
    assert value(measured, "swap.action.accuracy") == pytest.approx(0.25, abs=0.02)
    assert value(measured, "prior.dynamics.static.joint") == 1
    assert value(measured, "is") == pytest.approx(1, abs=0.05)


def test_entangled_copy_fails_the_swap_and_leaks_everything(renderer, test_clips, judge):
    """Its dynamics code holds the whole clip, and it returns A as it is."""

    class Copy:
        def encode(self, frames):
            codes = renderer.encode(frames)
            whole = torch.cat((codes.static, codes.dynamics), dim=1)
            return codes._replace(dynamics=whole, pose=renderer.poses(whole, frames.shape[1]))

        def poses(self, dynamics, length):
            return renderer.poses(dynamics, length)

        def decode(self, pose, static):
            return renderer.decode(pose[:, :, 3:], pose[:, 0, :3])

        def sample_static(self, count, generator):
            return renderer.sample_static(count, generator)

        def sample_dynamics(self, count, generator):
            return torch.cat((renderer.sample_static(count, generator), renderer.sample_dynamics(count, generator)), 1)

    measured = measure(Copy(), test_clips, judge, CONFIG)
    assert value(measured, "swap.action.accuracy") == 1
    assert value(measured, "reconstruction.mse") == 0
    for name in ATTRIBUTES:
        score = measured.scores[f"swap.static.{name}.accuracy"]
        assert score.value == pytest.approx(score.chance, abs=0.1), name
        assert value(measured, f"leakage.{name}") == 1
        assert value(measured, f"prior.static.leakage.{name}") == 1


def test_controls_stand_where_they_must(perfect):
    controls = {name: {key: score.value for key, score in scores.items()} for name, scores in perfect.controls.items()}
    chance = {name: score.chance for name, score in perfect.scores.items()}
    assert controls["perfect"]["swap.action.accuracy"] == 1
    assert controls["perfect"]["swap.static.joint"] == 1
    assert controls["ignores_static"]["swap.action.accuracy"] == 1
    assert controls["ignores_static"]["swap.static.joint"] == pytest.approx(chance["swap.static.joint"], abs=0.1)
    assert controls["ignores_dynamics"]["swap.static.joint"] == 1
    assert controls["ignores_dynamics"]["swap.action.accuracy"] == pytest.approx(1 / 4, abs=0.1)
    assert controls["copies"]["swap.action.accuracy"] == 1
    assert controls["copies"]["leakage.colour"] == 1
    assert controls["shuffled"]["swap.action.accuracy"] == pytest.approx(1 / 4, abs=0.1)
    assert controls["shuffled"]["swap.static.joint"] == pytest.approx(chance["swap.static.joint"], abs=0.1)


def test_same_seed_gives_the_same_scores(renderer, test_clips, judge, perfect):
    again = measure(renderer, test_clips, judge, CONFIG)
    assert again.scores == perfect.scores
    assert again.controls == perfect.controls


def test_model_without_a_sequence_stage_is_measured_by_its_poses(renderer, test_clips, judge):
    config = ProtocolConfig(clip_frames=4, pairs=64, sequence_stage=False)
    measured = measure(renderer, test_clips, judge, config)
    assert value(measured, "pose_swap.action.accuracy") == 1
    assert not [name for name in measured.scores if name.startswith(("swap.", "prior.", "cycle.")) or name == "is"]


def test_fidelity_is_that_of_the_definitions():
    generator = torch.Generator().manual_seed(0)
    real = torch.rand(2, 3, 3, 32, 32, generator=generator)
    noisy = (real + 0.1 * torch.randn(real.shape, generator=generator)).clamp(0, 1)
    found = fidelity(noisy, real)
    for clip in range(2):
        errors = [float(((noisy[clip, time] - real[clip, time]) ** 2).mean()) for time in range(3)]
        assert found.mse[clip] == pytest.approx(np.mean(errors), rel=1e-5)
        assert found.psnr[clip] == pytest.approx(np.mean([10 * np.log10(1 / error) for error in errors]), rel=1e-5)
    assert (found.ssim < 1).all()
    assert fidelity(real, real).ssim == pytest.approx(np.ones(2))


def test_cycle_gives_a_collapsed_code_chance():
    who = np.repeat(np.arange(10), 4)
    donors = np.arange(0, 40, 3)
    collapsed = torch.zeros(len(donors), 5)
    assert donor_rank(collapsed, torch.zeros(40, 5), donors, who, 0).mean() == 0.5
    table = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    assert donor_rank(table[donors], table, donors, who, 0).mean() == 1

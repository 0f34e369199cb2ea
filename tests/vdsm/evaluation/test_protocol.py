"""The metrics are right: models whose scores are known beforehand get those scores."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.evaluation.metrics import find_warnings
from tests.resamples import rough_scores
from tests.vdsm.evaluation.squares import Codes, PerfectModel, Render, Squares, SquaresProgram, draw
from vdsm.evaluation.cycle import donor_rank
from vdsm.evaluation.judge import Judge
from vdsm.evaluation.measurement import Measurement
from vdsm.evaluation.protocol import ProtocolConfig, measure
from vdsm.evaluation.reconstruction import HIGHEST_PSNR, fidelity

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few_resamples")]

CONFIG = ProtocolConfig(clip_frames=4, pairs=192, batch_clips=20)
FEW = ProtocolConfig(clip_frames=4, pairs=32, batch_clips=20, probe_clips=50)
ATTRIBUTES = ("colour", "side")
LABELS = ("action", *ATTRIBUTES)


@pytest.fixture(scope="module")
def perfect(
    renderer: PerfectModel, train_clips: Squares, test_clips: Squares, judge: Judge, drawing: SquaresProgram
) -> Measurement:
    return measure(renderer, test_clips, judge, CONFIG, train=train_clips, renderer=drawing)


def value(measured: Measurement, name: str) -> float:
    return measured.scores[name].value


def test_perfect_renderer_scores_the_judges_ceiling_and_its_leakage_is_exactly_chance(perfect: Measurement) -> None:
    for kind in ("", "pose_"):
        assert value(perfect, f"{kind}swap.action.accuracy") == value(perfect, "judge.action.accuracy") == 1
        assert value(perfect, f"{kind}swap.static.joint") == 1
        for name in ("action", *ATTRIBUTES):
            score = perfect.scores[f"{kind}leakage.{name}"]
            assert score.value == score.chance, name
            assert 0.2 < score.chance < 0.4, name
    assert perfect.scores["swap.action.accuracy"].n == 192
    assert perfect.scores["swap.action.accuracy"].chance == pytest.approx(1 / 4, abs=0.01)
    assert len(perfect.swapped.wrong) == 0
    assert {np.trace(np.array(matrix)) for matrix in perfect.swapped.confusion.values()} == {192}
    assert find_warnings(perfect.scores, "dynamics code") == []


def test_probes_of_a_perfect_model_read_each_factor_from_its_own_code_only(perfect: Measurement) -> None:
    for kind in ("linear", "mlp"):
        assert value(perfect, f"probe.dynamics.action.{kind}") == 1
        assert value(perfect, f"probe.static.colour.{kind}") == 1
        assert value(perfect, f"probe.static.side.{kind}") == 1
        for name in ("static.action", "dynamics.colour", "dynamics.side"):
            score = perfect.scores[f"probe.{name}.{kind}"]
            assert score.value <= score.chance + 0.05, name


def test_renderer_as_a_control_is_the_perfect_model(perfect: Measurement) -> None:
    control = perfect.controls["renderer"]
    for name in ("swap.action.accuracy", "swap.static.joint", "prior.static.action.accuracy"):
        assert control[name].value == 1
    assert control["prior.dynamics.static.joint"].value == 1
    assert control["leakage.colour"].value == control["leakage.colour"].chance
    assert control["prior.static.colour.h_y"].value == pytest.approx(np.log(4), abs=0.05)
    assert control["is"].value == pytest.approx(4, abs=0.2)


def test_perfect_renderer_keeps_what_is_kept_when_the_rest_is_drawn_from_the_prior(perfect: Measurement) -> None:
    assert value(perfect, "prior.static.action.accuracy") == 1
    assert value(perfect, "prior.dynamics.static.joint") == 1
    for name in ("prior.dynamics.leakage.action", "prior.static.leakage.colour", "prior.static.leakage.side"):
        score = perfect.scores[name]
        assert score.value == pytest.approx(score.chance, abs=0.12), name
    assert value(perfect, "is") == pytest.approx(4, abs=0.2)


def test_perfect_renderer_reconstructs_and_a_still_picture_does_not(perfect: Measurement) -> None:
    assert value(perfect, "reconstruction.mse") == 0
    assert value(perfect, "reconstruction.psnr") == HIGHEST_PSNR
    assert value(perfect, "reconstruction.ssim") == pytest.approx(1)
    assert value(perfect, "consistency.action") == 1
    assert value(perfect, "still.psnr") < 30
    assert value(perfect, "cycle.static") > 0.97


def test_model_that_ignores_the_static_code_has_a_perfect_action_and_is_caught(
    wrong_renderer: Callable[[Render], PerfectModel], train_clips: Squares, test_clips: Squares, judge: Judge
) -> None:
    """The field's table rates this model as perfect, which is why ours has the attributes too."""
    generator = np.random.default_rng(0)
    model = wrong_renderer(lambda static, action: draw(*generator.choice(test_clips.people), action))
    with rough_scores():
        measured = measure(model, test_clips, judge, CONFIG, train=train_clips)
    assert value(measured, "swap.action.accuracy") == 1
    assert value(measured, "is") == pytest.approx(4, abs=0.2)
    for name in ("joint", *(f"{name}.accuracy" for name in ATTRIBUTES)):
        score = measured.scores[f"swap.static.{name}"]
        assert score.value == pytest.approx(score.chance, abs=0.1), name
        leak = measured.scores.get(f"leakage.{name.removesuffix('.accuracy')}")
        assert leak is None or leak.value == pytest.approx(leak.chance, abs=0.1)
    assert value(measured, "cycle.static") == pytest.approx(0.5, abs=0.1)
    assert len(measured.swapped.wrong) > 100
    (warning,) = find_warnings(measured.scores, "dynamics code")
    assert "does not follow the static code" in warning


def test_model_that_ignores_the_dynamics_code_is_caught(
    wrong_renderer: Callable[[Render], PerfectModel], test_clips: Squares, judge: Judge
) -> None:
    with rough_scores():
        measured = measure(wrong_renderer(lambda static, action: draw(*static, 2)), test_clips, judge, CONFIG)
    assert value(measured, "swap.static.joint") == 1
    assert value(measured, "swap.action.accuracy") == pytest.approx(0.25, abs=0.02)
    assert value(measured, "prior.dynamics.static.joint") == 1
    assert value(measured, "is") == pytest.approx(1, abs=0.05)
    assert [text for text in find_warnings(measured.scores, "dynamics code") if "follow the dynamics code" in text]
    # Three of the four actions never occur, which the distance detects without knowing the pairs.
    assert value(measured, "frechet.judge.swap") > 10 * measured.controls["perfect"]["frechet.judge.swap"].value


def test_entangled_copy_fails_the_swap_and_leaks_everything(
    renderer: PerfectModel, test_clips: Squares, judge: Judge
) -> None:
    """Its dynamics code holds the whole clip, and it returns A unchanged."""

    class Copy:
        def encode(self, frames: torch.Tensor) -> Codes:
            codes = renderer.encode(frames)
            whole = torch.cat((codes.static, codes.dynamics), dim=1)
            return codes._replace(dynamics=whole, pose=renderer.poses(whole, frames.shape[1]))

        def poses(self, dynamics: torch.Tensor, length: int) -> torch.Tensor:
            return renderer.poses(dynamics, length)

        def decode(self, pose: torch.Tensor, static: torch.Tensor) -> torch.Tensor:
            return renderer.decode(pose[:, :, 3:], pose[:, 0, :3])

        def sample_static(self, count: int, generator: torch.Generator) -> torch.Tensor:
            return renderer.sample_static(count, generator)

        def sample_dynamics(self, count: int, generator: torch.Generator) -> torch.Tensor:
            return torch.cat((renderer.sample_static(count, generator), renderer.sample_dynamics(count, generator)), 1)

    with rough_scores():
        measured = measure(Copy(), test_clips, judge, CONFIG)
    assert value(measured, "swap.action.accuracy") == 1
    assert value(measured, "reconstruction.mse") == 0
    for name in ATTRIBUTES:
        score = measured.scores[f"swap.static.{name}.accuracy"]
        assert score.value == pytest.approx(score.chance, abs=0.1), name
        assert value(measured, f"leakage.{name}") == 1
        assert value(measured, f"prior.static.leakage.{name}") == 1
    assert (
        len([text for text in find_warnings(measured.scores, "dynamics code") if "still shows in 100.0%" in text]) == 2
    )


def test_controls_stand_where_they_must(perfect: Measurement) -> None:
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


def test_same_seed_gives_the_same_scores(
    renderer: PerfectModel, train_clips: Squares, test_clips: Squares, judge: Judge, drawing: SquaresProgram
) -> None:
    with rough_scores():
        first, again = (
            measure(renderer, test_clips, judge, FEW, train=train_clips, renderer=drawing) for _ in range(2)
        )
    assert again.scores == first.scores
    assert again.controls == first.controls


def test_model_without_a_sequence_stage_is_measured_by_its_poses(
    renderer: PerfectModel, test_clips: Squares, judge: Judge
) -> None:
    config = ProtocolConfig(clip_frames=4, pairs=64, sequence_stage=False)
    with rough_scores():
        measured = measure(renderer, test_clips, judge, config)
    assert value(measured, "pose_swap.action.accuracy") == 1
    absent = ("swap.", "leakage.", "prior.", "cycle.")
    assert not [name for name in measured.scores if name.startswith(absent) or name == "is"]


def test_probes_answers_for_other_clips_are_at_chance(perfect: Measurement) -> None:
    found = {name: score for name, score in perfect.controls["shuffled"].items() if name.startswith("probe.")}
    assert len(found) == 2 * len(LABELS) * 2
    for name in ("dynamics.action", "static.colour", "static.side"):
        coincidence = perfect.scores[f"judge.{name.partition('.')[2]}.accuracy"].chance
        assert value(perfect, f"probe.{name}.linear") == 1
        assert found[f"probe.{name}.linear"].value == pytest.approx(coincidence, abs=0.15), name


def test_data_without_labels_has_what_needs_no_judge(
    renderer: PerfectModel, test_clips: Squares, train_clips: Squares
) -> None:
    class Bare:
        """The squares without any label except the identities."""

        labels: dict[str, Any]
        vocabulary: dict[str, Any]

        def __init__(self, clips: Squares) -> None:
            self.keys, self.identities, self.clip_frames = clips.keys, clips.identities, clips.clip_frames
            self.labels, self.vocabulary, self.frames = {}, {}, clips.frames
            self._count = len(clips)

        def __len__(self) -> int:
            return self._count

    with rough_scores():
        measured = measure(renderer, Bare(test_clips), None, CONFIG, train=Bare(train_clips))
    groups = {name.partition(".")[0] for name in measured.scores}
    assert groups == {"cycle", "likeness", "moving", "smoothness", "reconstruction", "still"}
    assert value(measured, "cycle.static") > 0.97
    assert measured.controls == {}
    assert measured.swapped.judged == {}
    assert len(measured.swapped.wrong) == 0


def test_measuring_changes_neither_judge_nor_model_and_freezes_batch_norm(
    renderer: PerfectModel, test_clips: Squares, judge: Judge
) -> None:
    """With batch statistics, the score of a clip would depend on the other clips of its batch."""

    class Normalised(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.BatchNorm2d(3)

        def encode(self, frames: torch.Tensor) -> Codes:
            self.norm(frames.flatten(0, 1))
            return renderer.encode(frames)

        poses, decode = staticmethod(renderer.poses), staticmethod(renderer.decode)
        sample_static, sample_dynamics = staticmethod(renderer.sample_static), staticmethod(renderer.sample_dynamics)

    model = Normalised().train()
    before = {name: tensor.clone() for part in (judge, model) for name, tensor in part.state_dict().items()}
    judge.train()
    with rough_scores():
        measure(model, test_clips, judge, ProtocolConfig(clip_frames=4, pairs=32))
    after = {name: tensor for part in (judge, model) for name, tensor in part.state_dict().items()}
    assert not judge.training
    assert not model.training
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_neither_judge_nor_probes_learn_from_a_test_identity(
    renderer: PerfectModel, train_clips: Squares, test_clips: Squares, judge: Judge
) -> None:
    """The probes read training clips only, each once, and refuse identities that are in both splits."""
    assert not set(train_clips.identities) & set(test_clips.identities)
    train_clips.opened[:] = 0
    with rough_scores():
        measure(renderer, test_clips, judge, FEW, train=train_clips)
        assert train_clips.opened.sum() == 50
        assert train_clips.opened.max() == 1
        with pytest.raises(ValueError, match="in both the training and the test clips"):
            measure(renderer, test_clips, judge, FEW, train=test_clips)


def test_fidelity_is_that_of_the_definitions() -> None:
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


def test_cycle_gives_a_collapsed_code_chance() -> None:
    clusters = np.repeat(np.arange(10), 4)
    donors = np.arange(0, 40, 3)
    collapsed = torch.zeros(len(donors), 5)
    assert donor_rank(collapsed, torch.zeros(40, 5), donors, clusters, 0).mean() == 0.5
    table = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    assert donor_rank(table[donors], table, donors, clusters, 0).mean() == 1

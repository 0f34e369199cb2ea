"""Terms of the loss in a training: in its records, and refused where they do not apply."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pipeline.training.config import TrainingConfig
from pipeline.training.job import Job
from pipeline.training.loop import train_run
from pipeline.training.stage_config import StageConfig
from vdsm.annealing import weights_at
from vdsm.config import AnnealingConfig

pytestmark = pytest.mark.slow

Recorders = Callable[..., Any]
Jobs = Callable[..., Job]


def test_the_loss_is_the_weighted_sum_of_the_terms_of_its_step(tiny_job: Jobs, recorder: Recorders) -> None:
    recorded = recorder(stop_after=5)
    train_run(tiny_job(stages="1", log_interval=1), recorded)
    one = recorded.records[3]
    parts = one["weight_pose"] * one["kl_pose"] + one["weight_static"] * one["kl_static"]
    assert one["loss"] == pytest.approx(one["reconstruction"] + parts, rel=1e-5)


def test_the_static_consistency_of_paired_clips_is_part_of_the_loss_and_logged(
    tiny_job: Jobs, recorder: Recorders
) -> None:
    recorded, stage1 = recorder(stop_after=5), tiny_job().training.stage1
    paired = {"pairing": "identity", "annealing": replace(stage1.annealing, static_consistency=0.7)}
    train_run(tiny_job(stages="1", log_interval=1, stage1=paired), recorded)
    one = recorded.records[3]
    parts = one["weight_pose"] * one["kl_pose"] + one["weight_static"] * one["kl_static"]
    assert one["static_consistency"] > 0
    assert "dynamics_consistency" not in one
    assert one["loss"] == pytest.approx(one["reconstruction"] + parts + 0.7 * one["static_consistency"], rel=1e-5)


def test_static_consistency_needs_pairs_of_clips() -> None:
    annealing = AnnealingConfig(static_consistency=0.3)
    with pytest.raises(ValueError, match=r"static_consistency is 0.3, but .* no pairs .* to appearance or identity"):
        TrainingConfig(stage1=StageConfig(annealing=annealing))


def test_pose_distillation_is_part_of_the_loss_and_logged(tiny_job: Jobs, recorder: Recorders) -> None:
    recorded, stage2 = recorder(stop_after=30), tiny_job().training.stage2
    distilled = {"annealing": replace(stage2.annealing, dynamics_consistency=0, pose_distillation=0.7)}
    train_run(tiny_job(log_interval=1, stage2=distilled), recorded)
    one = next(record for record in recorded.records if record["kind"] == "train" and record["stage"] == 2)
    parts = sum(one[f"weight_{name}"] * one[f"kl_{name}"] for name in ("pose", "static", "dynamics"))
    assert one["pose_distillation"] > 0
    assert "dynamics_consistency" not in one
    weight = 0.7 * 32**2 / 64**2  # weights are stated for frames of 64 pixels
    assert one["loss"] == pytest.approx(one["reconstruction"] + parts + weight * one["pose_distillation"], rel=1e-5)


@pytest.mark.parametrize(
    ("stage", "name"),
    [(1, "dynamics_consistency"), (1, "pose_distillation"), (2, "static_consistency"), (2, "motion_consistency")],
)
def test_a_regulariser_of_the_other_stage_is_refused(stage: int, name: str) -> None:
    annealed = StageConfig(annealing=AnnealingConfig(**{name: 0.3}), pairing="identity" if stage == 1 else "none")
    message = f"stage{stage}.annealing.{name} is 0.3, but {name} is a regulariser of stage {3 - stage}; set it to 0"
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**{f"stage{stage}": annealed})
    TrainingConfig(**{f"stage{3 - stage}": replace(annealed, pairing="identity" if stage == 2 else "none")})


def test_motion_consistency_is_part_of_the_loss_and_logged_with_and_without_pairs(
    tiny_job: Jobs, recorder: Recorders
) -> None:
    annealing = replace(tiny_job().training.stage1.annealing, static_consistency=0, motion_consistency=0.3)
    for pairing in ("none", "identity"):
        recorded = recorder(stop_after=5)
        job = tiny_job(stages="1", log_interval=1, stage1={"pairing": pairing, "annealing": annealing})
        train_run(job, recorded)
        one = recorded.records[3]
        progress = (one["step"] - 1) / (job.training.stage1.steps - 1)
        weights = weights_at(annealing, progress, 64 * 64 * 3)
        parts = one["weight_pose"] * one["kl_pose"] + one["weight_static"] * one["kl_static"]
        expected = one["reconstruction"] + parts + weights.motion_consistency * one["motion_consistency"]
        assert 0 < one["motion_consistency"] < 1
        assert one["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("tolerance", [0.0, -2.0, float("nan"), float("inf")])
def test_a_tolerance_is_a_positive_number_of_nats(tolerance: float) -> None:
    with pytest.raises(ValueError, match=f"pair_tolerance is {tolerance}; it must be a number above 0"):
        AnnealingConfig(static_consistency=1, pair_tolerance=tolerance)


@pytest.mark.parametrize("stage", [1, 2])
def test_a_tolerance_without_static_consistency_is_refused(stage: int) -> None:
    annealed = StageConfig(annealing=AnnealingConfig(pair_tolerance=20))
    with pytest.raises(ValueError, match=f"stage{stage}.annealing.pair_tolerance is 20, but there is no static_consis"):
        TrainingConfig(**{f"stage{stage}": annealed})


def test_motion_consistency_needs_two_frames_of_a_window() -> None:
    annealing = AnnealingConfig(motion_consistency=0.02)
    with pytest.raises(ValueError, match=r"motion_consistency is 0.02, but stage1 has windows of one frame"):
        TrainingConfig(stage1=StageConfig(annealing=annealing, clip_frames=1, pairing="appearance"))

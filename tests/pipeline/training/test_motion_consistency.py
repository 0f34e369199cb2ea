"""The regulariser `motion_consistency` in a training, and in a recipe."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pipeline.training.config import StageConfig, TrainingConfig
from pipeline.training.job import Job
from pipeline.training.loop import train_run
from vdsm.annealing import weights_at
from vdsm.config import AnnealingConfig

Recorders = Callable[..., Any]
Jobs = Callable[..., Job]


def test_it_is_part_of_the_loss_and_logged_with_and_without_pairs(tiny_job: Jobs, recorder: Recorders) -> None:
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


def test_it_needs_two_frames_of_a_window() -> None:
    annealing = AnnealingConfig(motion_consistency=0.02)
    with pytest.raises(ValueError, match=r"motion_consistency is 0.02, but stage1 has windows of one frame"):
        TrainingConfig(stage1=StageConfig(annealing=annealing, clip_frames=1, pairing="appearance"))

"""Stage 2 on sequences of varying length, which extend beyond the frames that their codes are inferred from."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.training.config import TrainingConfig
from pipeline.training.distributed import DistributedContext
from pipeline.training.job import Job
from pipeline.training.stage import StageRun
from pipeline.training.stage_config import StageConfig
from vdsm.disentangler import Disentangler

Jobs = Callable[..., Job]
Seen = list[tuple[tuple[int, ...], int | None, tuple[int, ...]]]


def run_of(job: Job) -> StageRun:
    torch.manual_seed(0)
    return StageRun(job, 2, Disentangler(job.model), None, DistributedContext())  # type: ignore[arg-type]


def steps_of(run: StageRun, steps: range, monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Take the gradients of some steps, and return what the model was called with in each."""
    called: Seen = []
    forward = run.module.forward

    def noted(frames: Any, noise: Any, weights: Any, decoded: Any, seen: int | None = None, stored: Any = None) -> Any:
        assert noise.pose.shape[:2] == frames.shape[:2]
        called.append((tuple(frames.shape[:2]), seen, tuple(decoded.shape)))
        assert stored is None
        return forward(frames, noise, weights, decoded, seen)

    monkeypatch.setattr(run.module, "forward", noted)
    with run.batches(steps.start) as batches:
        for step, batch in zip(steps, batches, strict=False):
            run.stepper.gradients(step, batch)
    return called


def test_each_step_draws_a_length_whatever_came_before(tiny_job: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    job = tiny_job(stage2={"rollout_frames": 8, "num_decoded_frames": 6, "steps": 24})
    called = steps_of(run_of(job), range(24), monkeypatch)
    lengths = [frames[1] for frames, _, _ in called]
    assert set(lengths) == set(lengths[12:]) == {4, 5, 6, 7, 8}
    assert lengths[0] == 4, "the longest grows over the first half"
    assert max(lengths[:6]) <= 6
    assert {seen for _, seen, _ in called} == {4}
    assert [decoded[1] for _, _, decoded in called] == [min(6, length) for length in lengths]
    assert steps_of(run_of(job), range(17, 24), monkeypatch) == called[17:]
    other = steps_of(run_of(replace(job, seed=4)), range(24), monkeypatch)
    assert [frames[1] for frames, _, _ in other] != lengths


def test_without_the_setting_sequences_are_those_of_before(tiny_job: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    called = steps_of(run_of(tiny_job(stage2={"steps": 3})), range(3), monkeypatch)
    assert called == [((4, 4), None, (4, 3))] * 3


def test_codes_follow_from_the_first_frames_alone(tiny_job: Jobs) -> None:
    run = run_of(tiny_job(stage2={"rollout_frames": 8}))
    assert isinstance(run.module, nn.Module)
    run.module.eval()
    frames = torch.rand(2, 8, 3, 32, 32)
    changed = frames.clone()
    changed[:, 4:] = torch.rand(2, 4, 3, 32, 32)
    with torch.no_grad():
        first, second = (run.module.infer(part, 4) for part in (frames, changed))  # type: ignore[call-arg]
        alone = run.module.infer(frames[:, :4])
    assert torch.equal(first.dynamics[0], second.dynamics[0])
    assert torch.equal(first.static[0], second.static[0])
    torch.testing.assert_close(first.dynamics[0], alone.dynamics[0])
    assert not torch.equal(first.latents.pose_loc[:, 4:], second.latents.pose_loc[:, 4:])


def test_validation_measures_the_frames_that_codes_are_inferred_from(tiny_job: Jobs) -> None:
    """So that the ELBO can be compared with that of other trainings."""
    long, usual = run_of(tiny_job(stage2={"rollout_frames": 8})), run_of(tiny_job())
    weights = long.stepper.loss_weights(0)
    windows = [batch._replace(starts=0 * batch.starts) for batch in usual.order.validation_batches()]
    for run in (long, usual):
        run.order.validation_batches = lambda: windows  # type: ignore[method-assign]
    assert long.validate(weights) == usual.validate(weights)


def test_clips_must_be_as_long_as_the_longest_sequence(tiny_job: Jobs) -> None:
    with pytest.raises(ValueError, match=r"has 8 frames and stage2\.rollout_frames is 9"):
        run_of(tiny_job(stage2={"rollout_frames": 9}))


@pytest.mark.parametrize(
    ("stage1", "stage2", "message"),
    [
        ({}, {"rollout_frames": 7}, "rollout_frames is 7; it must be at least clip_frames, 8"),
        ({"rollout_frames": 9}, {}, "stage1.rollout_frames is 9, but stage 1 has no dynamics"),
        ({}, {"rollout_frames": 9, "num_decoded_frames": 10}, "num_decoded_frames is 10; it must be from 1 to 9"),
    ],
)
def test_lengths_that_make_no_sense_are_refused(stage1: dict[str, int], stage2: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig(stage1=StageConfig(**stage1), stage2=StageConfig(**stage2))  # type: ignore[arg-type]

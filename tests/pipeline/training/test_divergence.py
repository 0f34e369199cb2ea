"""A loss that is not finite, or blows up, is named in both stages, in full and in half precision."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.training.divergence import DivergenceError
from pipeline.training.job import Job
from pipeline.training.loop import train_run
from vdsm.disentangler import Disentangler

pytestmark = pytest.mark.slow

FAULTY_CALL = 3


def at_the_faulty_call(
    monkeypatch: pytest.MonkeyPatch, job: Job, stage: int, fault: Callable[[Any, Any], None]
) -> None:
    """Apply `fault` once to the model of a stage and the noise of its step."""
    module: Any = type(Disentangler(job.model).prepare_stage(1 if stage == 1 else 2))
    draw, calls = module.draw_noise, []

    def draw_noise(self: Any, *size: Any) -> Any:
        noise = draw(self, *size)
        calls.append(size)
        if len(calls) == FAULTY_CALL:
            fault(self, noise)
        return noise

    monkeypatch.setattr(module, "draw_noise", draw_noise)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("stage", "part", "terms"),
    [
        (1, "static", "reconstruction"),
        (2, "pose", "kl_pose, pose_distillation, reconstruction"),
        (2, "dynamics", "kl_pose, pose_distillation, reconstruction"),
    ],
)
def test_the_message_names_terms_step_and_clips(
    tiny_job: Callable[..., Job],
    recorder: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    stage: int,
    part: str,
    terms: str,
    precision: str,
) -> None:
    job = tiny_job(precision=precision, max_rollbacks=0, validation_interval=1000, stage1={"steps": 4})

    def poison(_: Any, noise: Any) -> None:
        getattr(noise, part)[1] = math.nan

    at_the_faulty_call(monkeypatch, job, stage, poison)
    recorded = recorder()
    with pytest.raises(DivergenceError) as caught:
        train_run(job, recorded)
    assert str(caught.value).startswith(f"stage {stage}, step {FAULTY_CALL}: {terms} is not finite on clips ")
    assert caught.value.clips
    assert all(clip in str(caught.value) for clip in caught.value.clips)


@pytest.mark.parametrize(
    ("stage", "parameter", "terms"),
    [
        (1, "encoder.static.2.bias", "kl_static"),
        (1, "encoder.pose_loc.bias", "kl_pose"),
        (2, "dynamics_encoder.loc.bias", "kl_dynamics"),
    ],
)
def test_a_term_that_blows_up_but_stays_finite_rolls_the_run_back(
    tiny_job: Callable[..., Job],
    recorder: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    stage: int,
    parameter: str,
    terms: str,
) -> None:
    job = tiny_job(max_rollbacks=1, validation_interval=1000, stage1={"steps": 4}, stage2={"steps": 4})

    def blow_up(model: Any, _: Any) -> None:
        model.get_parameter(parameter).data[:] = 1e6

    at_the_faulty_call(monkeypatch, job, stage, blow_up)
    recorded = recorder()
    assert train_run(job, recorded) == (2, 4, True)
    assert [event["event"] for event in recorded.events] == ["divergence", "rollback"]
    assert terms in recorded.events[0]["terms"]
    assert recorded.events[0]["error"].startswith(f"stage {stage}, step {FAULTY_CALL}: ")
    assert " is above 10,000 nats per value on clips " in recorded.events[0]["error"]

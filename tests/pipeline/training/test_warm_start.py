"""The loop with given initial weights: they change the start, and nothing else."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.training.job import Job
from pipeline.training.loop import train_run
from pipeline.training.state import TrainState
from vdsm import checkpoint
from vdsm.disentangler import Disentangler
from vdsm.warm_start import start_weights

pytestmark = pytest.mark.slow

Recorders = Callable[..., Any]
Jobs = Callable[..., Job]

SHORT: dict[str, Any] = {"stage1": {"steps": 8}, "stage2": {"steps": 6}, "picture_interval": 0}
HARDLY: dict[str, Any] = {"learning_rate": 1e-30, "warmup_steps": 0}


def same(here: dict[str, Any], there: dict[str, Any]) -> bool:
    return here.keys() == there.keys() and all(torch.equal(here[name], there[name]) for name in here)


def weights_of(job: Job, *, sequence_stage: bool = True) -> dict[str, Any]:
    torch.manual_seed(99)
    return start_weights(Disentangler(job.model), job.model, sequence_stage=sequence_stage).weights


@pytest.mark.parametrize("sequence_stage", [True, False])
def test_a_run_that_hardly_learns_ends_with_the_weights_it_started_from(
    tiny_job: Jobs, recorder: Recorders, sequence_stage: bool
) -> None:
    job, random = tiny_job(stage1=HARDLY | {"steps": 2}, stage2=HARDLY | {"steps": 2}, picture_interval=0), recorder()
    given = weights_of(job, sequence_stage=sequence_stage)
    started = recorder()
    train_run(replace(job, start_weights=lambda: given), started)
    train_run(job, random)
    ended, other = started.states[2, 2].weights, random.states[2, 2].weights
    assert ended.keys() == other.keys()
    for name, value in ended.items():
        # Without a trained sequence stage, that of the run keeps the initial values of its seed.
        torch.testing.assert_close(value, given.get(name, other[name]), rtol=0, atol=1e-25)
    assert any(not torch.allclose(given[name], other[name]) for name in given)


@pytest.mark.parametrize("stop_after", [3, 8, 11])
def test_a_resumed_run_does_not_read_the_weights_and_is_the_same_bit_for_bit(
    tiny_job: Jobs, recorder: Recorders, tmp_path: Path, stop_after: int
) -> None:
    job = tiny_job(**SHORT)
    given = weights_of(job)
    warm = replace(job, start_weights=lambda: given)
    uninterrupted, stopped, resumed = recorder(), recorder(stop_after=stop_after), recorder()
    train_run(warm, uninterrupted)
    train_run(warm, stopped)
    # A run does not stop at the end of a stage, whose checkpoint it would resume from if it were killed there.
    at = (1, stop_after) if stop_after <= 8 else (2, stop_after - 8)
    checkpoint.save(stopped.states[at].to_dict(), tmp_path / "state.pt")
    state = TrainState.from_dict(checkpoint.load(tmp_path / "state.pt"))
    never = replace(job, start_weights=lambda: pytest.fail("a resumed run reads its checkpoint only"))
    train_run(never, resumed, resume=state)
    assert same(uninterrupted.states[2, 6].weights, resumed.states[2, 6].weights)
    cold = recorder()
    train_run(job, cold)
    assert not same(uninterrupted.states[2, 6].weights, cold.states[2, 6].weights)


def test_a_rollback_to_the_start_is_one_to_the_same_weights(
    tiny_job: Jobs, recorder: Recorders, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, calls = tiny_job(**SHORT, stages="1"), []
    given = weights_of(job)

    def read() -> dict[str, Any]:
        calls.append(1)
        return given

    module: Any = type(Disentangler(job.model).prepare_stage(1))
    draw, drawn = module.draw_noise, []

    def draw_noise(self: Any, *size: Any) -> Any:
        noise = draw(self, *size)
        drawn.append(1)
        if len(drawn) == 2:
            noise.pose[0] = torch.nan
        return noise

    monkeypatch.setattr(module, "draw_noise", draw_noise)
    disturbed, slower = recorder(), recorder()
    train_run(replace(job, start_weights=read), disturbed)
    assert len(calls) == 2
    assert [event["event"] for event in disturbed.events] == ["divergence", "rollback"]
    monkeypatch.undo()
    rate = job.training.stage1.learning_rate * job.training.rollback_rate
    half = tiny_job(**SHORT | {"stage1": {"steps": 8, "learning_rate": rate}}, stages="1")
    train_run(replace(half, start_weights=lambda: given), slower)
    assert same(disturbed.states[1, 8].weights, slower.states[1, 8].weights)

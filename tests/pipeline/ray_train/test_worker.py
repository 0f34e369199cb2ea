"""The reporter of a Ray Train worker: when it requests a stop, and when it reports a preemption."""

import errno
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from cluster.storage.errors import MachineError
from pipeline.recipe import Recipe
from pipeline.training.distributed import DistributedContext
from pipeline.training.position import TrainPosition
from pipeline.training.reporter import StopDecision

pytestmark = pytest.mark.slow  # for the import of Ray Train


@pytest.fixture
def worker() -> ModuleType:
    from pipeline.ray_train import worker

    return worker


@pytest.fixture
def reporter(worker: ModuleType, tmp_path: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the reporter of a single worker, without a driver."""
    monkeypatch.setattr(worker.RayReporter, "_watch_for_stop", lambda self: None)
    config = worker.WorkerConfig(recipe=tiny_recipe, data="data", manifest_sha256="", run_url=str(tmp_path))
    return worker.RayReporter(None, config, DistributedContext())


def test_a_stop_is_requested_at_every_step_after_the_driver_asked(reporter: Any) -> None:
    assert reporter.should_stop() == StopDecision(stop=False, preempted=False)
    reporter._stop.set()
    assert [reporter.should_stop().stop for _ in range(2)] == [True, True]


def test_a_preemption_is_reported_once_and_polled_at_its_interval(
    reporter: Any, worker: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [None, "spot instance reclaimed"]
    monkeypatch.setattr(worker.ray.train, "get_preemption_info", lambda: answers.pop(0), raising=False)
    assert not reporter.should_stop().preempted  # the interval has just begun
    assert len(answers) == 2
    monkeypatch.setattr(worker, "PREEMPTION_POLL_S", 0.0)
    assert [reporter.should_stop().preempted for _ in range(4)] == [False, True, False, False]
    assert not answers


def test_a_version_of_ray_without_preemption_info_reports_none(
    reporter: Any, worker: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(worker.ray.train, "get_preemption_info", raising=False)
    monkeypatch.setattr(worker, "PREEMPTION_POLL_S", 0.0)
    assert reporter.should_stop() == StopDecision()


def test_a_checkpoint_is_due_once_the_last_one_is_old(
    worker: ModuleType, tmp_path: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.RayReporter, "_watch_for_stop", lambda self: None)
    now = [100.0]
    monkeypatch.setattr("pipeline.runs.work.time", SimpleNamespace(monotonic=lambda: now[0]))

    def reporter_of(interval_s: float, rank: int = 0) -> Any:
        training = replace(tiny_recipe.training, checkpoint_interval_s=interval_s)
        recipe = tiny_recipe.model_copy(update={"training": training})
        config = worker.WorkerConfig(recipe=recipe, data="data", manifest_sha256="", run_url=str(tmp_path))
        reporter = worker.RayReporter(None, config, DistributedContext(rank=rank))
        reporter._store, reporter.log = Mock(), Mock()
        return reporter

    never, first, other = reporter_of(0.0), reporter_of(30.0), reporter_of(30.0, rank=1)
    assert not first.should_stop().due
    now[0] += 30
    assert [one.should_stop().due for one in (never, first, other)] == [False, True, False]
    first.save(Mock(position=TrainPosition(1, 5)), last=False)
    assert not first.should_stop().due


@pytest.mark.parametrize("size", [1, 2])
def test_a_fault_of_this_machine_is_reported_and_not_tried_again(
    size: int, worker: ModuleType, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: size)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/data/x")

    monkeypatch.setattr(worker.ray, "get", lambda reference: reference)
    monkeypatch.setattr(worker.ray.train, "get_context", lambda: context)
    monkeypatch.setattr(worker, "RayReporter", lambda *_: None)
    monkeypatch.setattr(worker, "_train", fail)
    monkeypatch.setattr(worker.torch, "set_num_threads", lambda count: None)
    coordinator = Mock()
    coordinator.user_error.remote.return_value = None
    config = worker.WorkerConfig(recipe=tiny_recipe, data="data", manifest_sha256="", run_url="run")
    message = "/data/x: No space left on device; free space on this disk, or choose another folder"
    if size == 1:  # at once
        assert worker.worker(config, coordinator) == {"error": message}
    else:  # the other ranks have to be ended first
        with pytest.raises(MachineError, match="No space left"):
            worker.worker(config, coordinator)
        coordinator.set_user_error.remote.assert_called_once_with(message)


def test_many_workers_are_polled_less_often() -> None:
    from pipeline.ray_train.driver import poll_interval_s

    assert [poll_interval_s(workers) for workers in (1, 20, 100, 1000)] == [0.2, 0.2, pytest.approx(0.7), 2.0]

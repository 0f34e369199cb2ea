"""What runs in each Ray Train worker, and how it communicates with the driver."""

import threading
import time
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch

from cluster.errors import UserError
from cluster.storage import os_errors
from cluster.storage.fence import fenced
from pipeline.ray_train.gauges import Gauges
from pipeline.runs.work import RunReporter, WorkerConfig, train_worker
from pipeline.training.distributed import DistributedContext
from pipeline.training.divergence import DivergenceError
from pipeline.training.reporter import StopDecision
from vdsm.memory import keep_freed_memory

PREEMPTION_POLL_S = 5.0
"""Seconds between checks for an imminent preemption."""


class RayReporter(RunReporter):
    """A Reporter that sends records to the coordinator and checkpoints to the folder of the run."""

    def __init__(self, coordinator: Any, worker_config: WorkerConfig, world: DistributedContext) -> None:
        super().__init__(worker_config, world)
        self._coordinator = coordinator
        self._gauges = Gauges(Path(worker_config.run_url).name)
        self._polled_at, self._preempted = time.monotonic(), False
        self._stop = threading.Event()
        self._closed = threading.Event()
        if world.is_first:
            threading.Thread(target=self._watch_for_stop, daemon=True, name="watch for stop").start()

    def _watch_for_stop(self) -> None:
        while not self._closed.wait(0.5):
            try:
                if ray.get(self._coordinator.stop_requested.remote(), timeout=30):
                    self._stop.set()
                    return
            except ray.exceptions.RayError:  # the driver is gone, and this worker will soon be
                return

    def log(self, record: dict[str, Any]) -> None:
        """Send a record, and wait until an event has arrived."""
        sent = self._coordinator.push.remote(record)
        if record["kind"] == "event":
            ray.get(sent)
        self._gauges.show(record)

    def should_stop(self) -> StopDecision:
        """Return whether the driver has requested a stop, a machine will soon be preempted, or a checkpoint is due."""
        flags = (self._stop.is_set(), self._should_poll_preemption(), self.is_save_due())
        stop, poll, due = self._world.any_rank(*flags)
        return StopDecision(stop, preempted=poll and self._preemption_requested(), due=due)

    def _should_poll_preemption(self) -> bool:
        """Return true on rank 0 every few seconds, until a preemption was found."""
        is_due = time.monotonic() - self._polled_at > PREEMPTION_POLL_S
        if not self._world.is_first or self._preempted or not is_due:
            return False
        self._polled_at = time.monotonic()
        return True

    def _preemption_requested(self) -> bool:
        """Return whether Ray has learned that a machine of this worker group will be preempted; true once only.

        All ranks must call together.
        """
        poll = getattr(ray.train, "get_preemption_info", None)  # older versions of Ray do not have it
        found = not self._preempted and poll is not None and poll() is not None
        self._preempted = self._preempted or found
        return found

    def close(self) -> None:
        """Wait for the last checkpoint, and stop watching."""
        try:
            super().close()
        finally:
            self._closed.set()


def worker(worker_config: WorkerConfig, coordinator: Any) -> dict[str, Any]:
    """Train in one Ray Train worker.

    Returns:
        The fields of `pipeline.training.position.Outcome`, or `error` with the message of the user error that ended it.
    """
    error_message = ray.get(coordinator.user_error.remote())
    if error_message is not None:  # the worker group was restarted after it, but another attempt would not help
        return {"error": error_message}
    context = ray.train.get_context()
    training = worker_config.recipe.training
    torch.set_num_threads(training.threads_per_worker)
    keep_freed_memory()
    device = ray.train.torch.get_device() if training.use_gpu else torch.device("cpu")
    world = DistributedContext(rank=context.get_world_rank(), size=context.get_world_size(), device=device)
    with fenced(*worker_config.fences):
        return _train_or_explain(worker_config, coordinator, world)


def _train_or_explain(worker_config: WorkerConfig, coordinator: Any, world: DistributedContext) -> dict[str, Any]:
    reporter = RayReporter(coordinator, worker_config, world)
    try:
        with os_errors.explained("the worker's files"):
            return _train(worker_config, reporter, world)
    except DivergenceError as error:  # raised on every rank
        return {"error": str(error)}
    except UserError as error:
        if world.size == 1:
            return {"error": str(error)}
        ray.get(coordinator.set_user_error.remote(str(error)))
        raise  # the other ranks wait for this one until Ray Train ends them


def _train(worker_config: WorkerConfig, reporter: RayReporter, world: DistributedContext) -> dict[str, Any]:
    node = ray.get_runtime_context().get_node_id()
    return train_worker(worker_config, reporter, world, node)._asdict()

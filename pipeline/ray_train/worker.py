"""What runs in each Ray Train worker, and how it communicates with the driver."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage import os_errors
from cluster.storage.fence import Fence, fenced
from cluster.storage.scratch import scratch_folder
from pipeline.ray_train.gauges import Gauges
from pipeline.recipe import Recipe
from pipeline.runs.checkpoints import CheckpointStore
from pipeline.training.distributed import DistributedContext
from pipeline.training.divergence import DivergenceError
from pipeline.training.job import Job
from pipeline.training.loop import train_run
from pipeline.training.position import START, TrainPosition
from pipeline.training.reporter import StopDecision
from pipeline.training.state import Provenance, TrainState
from vdsm.memory import keep_freed_memory

PREEMPTION_POLL_S = 5.0
"""Seconds between checks for an imminent preemption."""


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """What every worker needs to train."""

    recipe: Recipe
    data: str
    manifest_sha256: str
    run_url: str
    profile: bool = False
    """Whether to keep a trace of a few steps of each stage."""
    fences: tuple[Fence, ...] = ()
    """What the driver has locked; the workers stop writing there when it has lost the lock."""


class RayReporter:
    """A Reporter that sends records to the coordinator and checkpoints to the folder of the run."""

    def __init__(self, coordinator: Any, worker_config: WorkerConfig, world: DistributedContext) -> None:
        self._coordinator, self._worker_config, self._world = coordinator, worker_config, world
        self._store = CheckpointStore(worker_config.run_url, worker_config.recipe.training)
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

    def save(self, state: TrainState, *, last: bool, audit: Sequence[Mapping[str, Any]] = ()) -> None:
        """Pass a checkpoint to the store; at the end of a stage wait until it is written."""
        self._store.save(state, last=last, audit=audit)
        position = state.position._asdict()
        self.log({"kind": "checkpoint", **position})
        if last:
            self._store.flush()
            self.log({"kind": "event", "event": "stage finished", **position})

    def restore(
        self, position: TrainPosition | None = None, *, before: TrainPosition | None = None
    ) -> TrainState | None:
        """Return a checkpoint, by default the newest intact one; rank 0 decides which, and every rank reads it."""
        if self._world.is_first:
            self._store.flush()
            if position is None:
                position = self._store.newest(before)
        chosen = self._world.broadcast(position)
        return None if chosen is None else self._store.load(TrainPosition(*chosen))

    def should_stop(self) -> StopDecision:
        """Return whether the driver has requested a stop, and whether a machine will soon be preempted."""
        stop, poll = self._world.any_rank(self._stop.is_set(), self._should_poll_preemption())
        return StopDecision(stop, preempted=poll and self._preemption_requested())

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

    @contextlib.contextmanager
    def profile(self, stage: int) -> Iterator[Callable[[], None]]:
        """Keep a trace of steps 4 to 6 of a stage in the folder of the run, if --profile is set."""
        if not self._worker_config.profile:
            yield lambda: None
            return
        from torch.profiler import profile, schedule

        def keep(profiler: Any) -> None:
            name = f"stage{stage}-rank{self._world.rank}.json.gz"
            with scratch_folder() as folder:
                profiler.export_chrome_trace(str(folder / name))
                storage.upload(folder / name, storage.join(self._worker_config.run_url, "profile", name))

        plan = schedule(wait=2, warmup=1, active=3, repeat=1)
        with profile(schedule=plan, on_trace_ready=keep, profile_memory=True) as profiler:
            yield profiler.step

    def close(self) -> None:
        """Wait for the last checkpoint, and stop watching."""
        try:
            self._store.flush()
        finally:
            self._store.close()
            self._closed.set()


def worker(worker_config: WorkerConfig, coordinator: Any) -> dict[str, Any]:
    """Train in one Ray Train worker.

    Returns:
        The fields of `pipeline.training.job.Outcome`, or `error` with the message of the user error that ended it.
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
    training = worker_config.recipe.training
    try:
        job = storage.retry_while_unreachable(lambda: _job(worker_config), training.storage_patience_s)
        resume = reporter.restore()
    except ValueError as error:
        raise UserError(str(error)) from error
    _log_start(reporter, world, resume, job.provenance)
    outcome = train_run(job, reporter, world, resume)
    reporter.close()
    return outcome._asdict()


def _log_start(
    reporter: RayReporter, world: DistributedContext, resume: TrainState | None, provenance: Provenance
) -> None:
    processes = world.gather({"pid": os.getpid(), "node": ray.get_runtime_context().get_node_id()})
    if world.is_first:
        position = resume.position if resume else START
        event: dict[str, Any] = {"kind": "event", "event": "resume" if resume else "start", **position._asdict()}
        if provenance.start and resume is None:
            event["start_from"] = provenance.start["checkpoint"]
        reporter.log(event | {"workers": world.size, "processes": processes})


def _job(worker_config: WorkerConfig) -> Job:
    from pipeline.runs.pairs import run_pairs
    from pipeline.runs.start import stored_origin, stored_weights
    from preprocessing.dataset.reader import ClipDataset

    recipe, run = worker_config.recipe, worker_config.run_url
    clips = ClipDataset(worker_config.data, "train", cache_bytes=round(recipe.training.cache_gb * 1e9))
    provenance = Provenance(
        recipe.model_dump(mode="json"), worker_config.manifest_sha256, start=stored_origin(run, recipe)
    )
    return Job(
        model=recipe.model,
        training=recipe.training,
        seed=recipe.seed,
        clips=clips,
        pairs=run_pairs(recipe.training, clips, run),
        start_weights=(lambda: stored_weights(run)) if recipe.training.start_from else None,
        provenance=provenance,
    )

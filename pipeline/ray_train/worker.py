"""What runs in each Ray Train worker, and how it talks to the driver."""

import contextlib
import os
import tempfile
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
from pipeline.ray_train.gauges import Gauges
from pipeline.recipe import Recipe
from pipeline.runs.checkpoints import CheckpointStore
from pipeline.training.job import DivergenceError, Job, TrainPosition
from pipeline.training.loop import train_run
from pipeline.training.world import DistributedContext
from vdsm.memory import keep_freed_memory

LOOK_S = 5.0
"""How often the workers ask whether a machine will be taken away."""


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """What every worker is told."""

    recipe: Recipe
    data: str
    manifest_sha256: str
    run_url: str
    profile: bool = False
    """Whether to keep a trace of a few steps of each stage."""


@ray.remote(num_cpus=0)
class Coordinator:
    """Passes records from the workers to the driver, and the wish to stop the other way."""

    def __init__(self) -> None:
        self._records: list[dict[str, Any]] = []
        self._stop = False
        self._mistake: str | None = None

    def push(self, record: dict[str, Any]) -> None:
        """Keeps a record for the driver."""
        self._records.append(record)

    def take(self) -> list[dict[str, Any]]:
        """The records since the last call."""
        taken, self._records = self._records, []
        return taken

    def ask_to_stop(self) -> None:
        """The driver's wish."""
        self._stop = True

    def stopping(self) -> bool:
        """Whether the driver wants the workers to stop."""
        return self._stop

    def set_mistake(self, message: str) -> None:
        """Keeps the message of a mistake of the user; the first one counts."""
        self._mistake = self._mistake or message

    def mistake(self) -> str | None:
        """That message."""
        return self._mistake


class RayReporter:
    """A job.Reporter that sends records to the coordinator and checkpoints to the folder of the run."""

    def __init__(self, coordinator: Any, worker_config: WorkerConfig, world: DistributedContext) -> None:
        self._ledger, self._assignment, self._world = coordinator, worker_config, world
        self._store = CheckpointStore(worker_config.run_url, worker_config.recipe.training)
        self._gauges = Gauges(Path(worker_config.run_url).name)
        self._looked, self._noticed = time.monotonic(), False
        self._stop = threading.Event()
        self._closed = threading.Event()
        if world.rank == 0:
            threading.Thread(target=self._watch, daemon=True, name="watch for stop").start()

    def _watch(self) -> None:
        while not self._closed.wait(0.5):
            try:
                if ray.get(self._ledger.stopping.remote(), timeout=30):
                    self._stop.set()
                    return
            except ray.exceptions.RayError:  # the driver is gone, and this worker soon will be
                return

    def log(self, record: dict[str, Any]) -> None:
        """Sends a record; called on rank 0."""
        self._ledger.push.remote(record)
        self._gauges.show(record)

    def event(self, event: str, **details: Any) -> None:
        """Sends an event; called on rank 0."""
        ray.get(self._ledger.push.remote({"kind": "event", "event": event, **details}))

    def should_stop(self) -> bool:
        """Whether the driver wants the workers to stop, as rank 0 knows it."""
        return self._stop.is_set()

    def time_to_look(self) -> bool:
        """Every few seconds, by rank 0's clock."""
        due = self._world.rank == 0 and not self._noticed and time.monotonic() - self._looked > LOOK_S
        if due:
            self._looked = time.monotonic()
        return due

    def notice(self) -> bool:
        """Whether Ray has learned, since this group of workers began, that a machine of theirs will be taken away."""
        ask = getattr(ray.train, "get_preemption_info", None)  # older versions of Ray cannot tell
        found = not self._noticed and ask is not None and ask() is not None
        self._noticed = self._noticed or found
        return found

    def save(
        self, state: dict[str, Any] | None, place: TrainPosition, *, last: bool, audit: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Hands a checkpoint to the store; at the end of a stage waits until it is kept."""
        if state is None:
            return
        self._store.save(state, place, last=last, audit=audit)
        self.log({"kind": "checkpoint", **place._asdict()})
        if last:
            self._store.flush()
            self.event("stage finished", **place._asdict())

    def latest(self, before: TrainPosition | None = None) -> Mapping[str, Any] | None:
        """The newest whole checkpoint; rank 0 looks which it is, and every rank reads it."""
        place = None
        if self._world.rank == 0:
            self._store.flush()
            place = self._store.newest(before)
        place = self._world.from_first(place)
        return None if place is None else self._store.load(place)

    def at(self, place: TrainPosition) -> Mapping[str, Any]:
        """The checkpoint of a place."""
        if self._world.rank == 0:
            self._store.flush()
        self._world.from_first(None)
        return self._store.load(place)

    @contextlib.contextmanager
    def profile(self, stage: int) -> Iterator[Callable[[], None]]:
        """Within the block, where --profile is set, a trace of steps 4 to 6 of a stage is kept in the run's folder."""
        if not self._assignment.profile:
            yield lambda: None
            return
        from torch.profiler import profile, schedule

        def keep(profiler: Any) -> None:
            name = f"stage{stage}-rank{self._world.rank}.json.gz"
            with tempfile.TemporaryDirectory() as folder:
                profiler.export_chrome_trace(str(Path(folder) / name))
                storage.upload(Path(folder) / name, storage.join(self._assignment.run_url, "profile", name))

        plan = schedule(wait=2, warmup=1, active=3, repeat=1)
        with profile(schedule=plan, on_trace_ready=keep, profile_memory=True) as profiler:
            yield profiler.step

    def close(self) -> None:
        """Waits for the last checkpoint, and stops watching."""
        try:
            self._store.flush()
        finally:
            self._store.close()
            self._closed.set()


def worker(worker_config: WorkerConfig, coordinator: Any) -> dict[str, Any]:
    """What each Ray Train worker runs. Returns how far it came, or the user's mistake that ended it."""
    mistake = ray.get(coordinator.mistake.remote())
    if mistake is not None:  # the group was started again after it; trying once more would not help
        return {"mistake": mistake}
    context = ray.train.get_context()
    training = worker_config.recipe.training
    torch.set_num_threads(training.threads_per_worker)
    keep_freed_memory()
    device = ray.train.torch.get_device() if training.use_gpu else torch.device("cpu")
    world = DistributedContext(rank=context.get_world_rank(), size=context.get_world_size(), device=device)
    reporter = RayReporter(coordinator, worker_config, world)
    try:
        try:
            job = storage.patiently(lambda: _job(worker_config), training.storage_patience_s)
            resume = reporter.latest()
        except ValueError as error:
            raise UserError(str(error)) from error
        processes = world.gather({"pid": os.getpid(), "node": ray.get_runtime_context().get_node_id()})
        if world.rank == 0:
            place = TrainPosition(int(resume["stage"]), int(resume["step"])) if resume else TrainPosition(1, 0)
            about = {"workers": world.size, "processes": processes}
            reporter.event("resume" if resume else "start", **place._asdict(), **about)
        outcome = train_run(job, reporter, world, resume)
        reporter.close()
        return outcome._asdict()
    except DivergenceError as error:  # raised on every rank
        return {"mistake": str(error)}
    except UserError as error:
        ray.get(coordinator.set_mistake.remote(str(error)))
        raise


def _job(worker_config: WorkerConfig) -> Job:
    from preprocessing.dataset.reader import ClipDataset

    recipe = worker_config.recipe
    notes = {"recipe": recipe.model_dump(mode="json"), "manifest_sha256": worker_config.manifest_sha256}
    clips = ClipDataset(worker_config.data, "train", cache_bytes=round(recipe.training.cache_gb * 1e9))
    return Job(model=recipe.model, training=recipe.training, seed=recipe.seed, clips=clips, notes=notes)

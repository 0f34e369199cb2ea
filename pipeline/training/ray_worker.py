"""What runs in each Ray Train worker, and how it talks to the driver."""

import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch

from cluster import storage
from cluster.errors import UserError
from pipeline.config import Recipe
from pipeline.training.loop import train_run
from pipeline.training.run_store import STATE, Place, checkpoint_name, local_copy, stage_file
from pipeline.training.stage import Job, NonFiniteLoss
from pipeline.training.world import World
from vdsm import checkpoint
from vdsm.memory import keep_freed_memory


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What every worker is told."""

    recipe: Recipe
    data: str
    manifest_sha256: str
    run_url: str
    fallback: str | None
    """Checkpoint file to go on from where Ray Train knows of none."""


@ray.remote(num_cpus=0)
class Ledger:
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
    """A stage.Reporter that sends records to the ledger and checkpoints to Ray Train."""

    def __init__(self, ledger: Any, run_url: str, rank: int) -> None:
        self._ledger, self._run_url, self._rank = ledger, run_url, rank
        self._stop = threading.Event()
        self._closed = threading.Event()
        if rank == 0:
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

    def event(self, event: str, **details: Any) -> None:
        """Sends an event; from rank 0 only."""
        if self._rank == 0:
            ray.get(self._ledger.push.remote({"kind": "event", "event": event, **details}))

    def should_stop(self) -> bool:
        """Whether the driver wants the workers to stop, as rank 0 knows it."""
        return self._stop.is_set()

    def save(self, state: dict[str, Any] | None, *, stage: int, step: int, last: bool) -> None:
        """Reports a checkpoint and waits until Ray Train has it on its list; the end of a stage is kept for good."""
        place = Place(stage, step)
        with tempfile.TemporaryDirectory() as folder:
            kept = None
            if state is not None:
                path = Path(folder) / STATE
                checkpoint.save(state, path)
                if last:
                    storage.upload(path, stage_file(self._run_url, stage))
                kept = ray.train.Checkpoint.from_directory(folder)
            ray.train.report(place._asdict(), checkpoint=kept, checkpoint_dir_name=checkpoint_name(place))
        # `report` returns before the controller has taken the checkpoint; this call returns after.
        ray.train.get_all_reported_checkpoints()
        if state is not None:
            self.log({"kind": "checkpoint", "stage": stage, "step": step})
        if last:
            self.event("stage finished", stage=stage, step=step)

    def close(self) -> None:
        """Stops watching."""
        self._closed.set()


def worker(assignment: Assignment, ledger: Any) -> dict[str, Any]:
    """What each Ray Train worker runs. Returns how far it came, or the user's mistake that ended it."""
    mistake = ray.get(ledger.mistake.remote())
    if mistake is not None:  # the group was started again after it; trying once more would not help
        return {"mistake": mistake}
    context = ray.train.get_context()
    training = assignment.recipe.training
    torch.set_num_threads(training.threads_per_worker)
    keep_freed_memory()
    device = ray.train.torch.get_device() if training.use_gpu else torch.device("cpu")
    world = World(rank=context.get_world_rank(), size=context.get_world_size(), device=device)
    reporter = RayReporter(ledger, assignment.run_url, world.rank)
    try:
        try:
            job, resume = _job(assignment), _resume(assignment.fallback)
        except ValueError as error:
            raise UserError(str(error)) from error
        place = Place(int(resume["stage"]), int(resume["step"])) if resume else Place(1, 0)
        reporter.event("resume" if resume else "start", stage=place.stage, step=place.step, workers=world.size)
        outcome = train_run(job, reporter, world, resume)
        return outcome._asdict()
    except NonFiniteLoss as error:  # raised on every rank
        reporter.event("non-finite loss", error=str(error))
        return {"mistake": str(error)}
    except UserError as error:
        ray.get(ledger.set_mistake.remote(str(error)))
        raise
    finally:
        reporter.close()


def _job(assignment: Assignment) -> Job:
    from preprocessing.dataset import ClipDataset

    recipe = assignment.recipe
    notes = {"recipe": recipe.model_dump(mode="json"), "manifest_sha256": assignment.manifest_sha256}
    clips = ClipDataset(assignment.data, "train")
    return Job(model=recipe.model, training=recipe.training, seed=recipe.seed, clips=clips, notes=notes)


def _resume(fallback: str | None) -> dict[str, Any] | None:
    latest = ray.train.get_checkpoint()
    with tempfile.TemporaryDirectory() as scratch:
        if latest is not None:
            with latest.as_directory() as folder:
                return checkpoint.load(Path(folder) / STATE)
        return checkpoint.load(local_copy(fallback, Path(scratch))) if fallback else None

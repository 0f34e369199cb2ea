"""The training under Ray Train: workers, checkpoints in storage, restarts.

The driver starts the trainer, takes the workers' records from a small actor, and asks them to stop on ctrl-C.
"""

import contextlib
import os
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train.torch import TorchConfig, TorchTrainer

from cluster import storage
from cluster.errors import UserError
from pipeline.config import Recipe
from pipeline.training.loop import train_run
from pipeline.training.run_log import RunLog
from pipeline.training.run_store import CHECKPOINTS, STATE, Place, checkpoint_name, local_copy, stage_file
from pipeline.training.stage import Job, NonFiniteLoss
from pipeline.training.world import World
from vdsm import checkpoint

COLLECTIVE_TIMEOUT_S = 600
"""A worker that hears nothing from the others for so long ends with an error instead of waiting on."""


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
        self._records.append(record)

    def take(self) -> list[dict[str, Any]]:
        taken, self._records = self._records, []
        return taken

    def ask_to_stop(self) -> None:
        self._stop = True

    def stopping(self) -> bool:
        return self._stop

    def set_mistake(self, message: str) -> None:
        self._mistake = self._mistake or message

    def mistake(self) -> str | None:
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
        self._ledger.push.remote(record)

    def event(self, event: str, **details: Any) -> None:
        """Sends an event; from rank 0 only."""
        if self._rank == 0:
            ray.get(self._ledger.push.remote({"kind": "event", "event": event, **details}))

    def should_stop(self) -> bool:
        return self._stop.is_set()

    def save(self, state: dict[str, Any] | None, *, stage: int, step: int, last: bool) -> None:
        place = Place(stage, step)
        with tempfile.TemporaryDirectory() as folder:
            kept = None
            if state is not None:
                path = Path(folder) / STATE
                checkpoint.save(state, path)
                if last:
                    storage.upload(path, stage_file(self._run_url, stage))
                kept = ray.train.Checkpoint.from_directory(folder)
            ray.train.report(
                {"stage": stage, "step": step}, checkpoint=kept, checkpoint_dir_name=checkpoint_name(place)
            )
        # `report` returns before the controller has taken the checkpoint; this call returns after.
        ray.train.get_all_reported_checkpoints()
        if state is not None:
            self.log({"kind": "checkpoint", "stage": stage, "step": step})
        if last:
            self.event("stage finished", stage=stage, step=step)

    def close(self) -> None:
        """Stops watching."""
        self._closed.set()


class FailureLog(ray.train.UserCallback):
    """Tells the ledger that workers failed. Runs in Ray Train's controller, where an exception would end the run."""

    def __init__(self, ledger: Any) -> None:
        self._ledger = ledger

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        ranks = sorted(worker_exceptions)
        error = _last_line(worker_exceptions[ranks[0]]) if ranks else "no reason given"
        with contextlib.suppress(Exception):
            self._ledger.push.remote({"kind": "event", "event": "failure", "ranks": ranks, "error": error})


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def worker(assignment: Assignment, ledger: Any) -> dict[str, Any]:
    """What each Ray Train worker runs. Returns how far it came, or the user's mistake that ended it."""
    mistake = ray.get(ledger.mistake.remote())
    if mistake is not None:  # the group was started again after it; trying once more would not help
        return {"mistake": mistake}
    context = ray.train.get_context()
    training = assignment.recipe.training
    torch.set_num_threads(training.threads_per_worker)
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


def fit(assignment: Assignment, log: RunLog) -> dict[str, Any]:
    """Trains until the end, or until ctrl-C; the records of the workers go to `log`. Needs a connection to Ray.

    Returns `stage`, `step` and `finished`. Raises UserError for the user's mistakes and for a run that failed too often.
    The first ctrl-C saves a checkpoint and stops, the second stops at once.
    """
    # How often Ray Train's controller looks at the workers, which is also how long a checkpoint may take to be known.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    training = assignment.recipe.training
    ledger = Ledger.remote()  # type: ignore[attr-defined]
    trainer = TorchTrainer(
        lambda: worker(assignment, ledger),
        torch_config=TorchConfig(timeout_s=COLLECTIVE_TIMEOUT_S),
        scaling_config=ray.train.ScalingConfig(
            num_workers=training.num_workers,
            use_gpu=training.use_gpu,
            resources_per_worker={"CPU": training.threads_per_worker} | ({"GPU": 1} if training.use_gpu else {}),
        ),
        run_config=ray.train.RunConfig(
            name=CHECKPOINTS,
            storage_path=assignment.run_url,
            failure_config=ray.train.FailureConfig(max_failures=training.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=training.keep_checkpoints),
            callbacks=[FailureLog(ledger)],
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),
        ),
    )
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(trainer.fit())
        except BaseException as error:  # handed to the main thread
            results.append(error)

    # Not in the main thread, where Ray Train would take ctrl-C as the wish to abort at once.
    thread = threading.Thread(target=run, daemon=True, name="ray train")
    thread.start()
    _follow(thread, ledger, log)
    result, mistake = results[0], ray.get(ledger.mistake.remote())
    if isinstance(result, BaseException):
        if mistake is None and not isinstance(result, ray.train.TrainingFailedError):
            raise result
        log.event("gave up", error=mistake or _last_line(result))
        raise UserError(mistake or f"the workers failed more than {training.max_failures} times: {_last_line(result)}")
    outcome: dict[str, Any] = result.return_value
    if "mistake" in outcome:
        log.event("gave up", error=outcome["mistake"])
        raise UserError(outcome["mistake"])
    return outcome


def _follow(thread: threading.Thread, ledger: Any, log: RunLog) -> None:
    """Passes the records on until `thread` ends. The first ctrl-C asks the workers to stop, the second is raised."""
    asked = False
    while True:
        try:
            running = thread.is_alive()
            for record in ray.get(ledger.take.remote()):
                log.take(record)
            if not running:
                return
            thread.join(0.3)
        except KeyboardInterrupt:
            if asked:
                raise
            asked = True
            log.note("saving a checkpoint, then stopping; ctrl-C once more stops at once")
            ledger.ask_to_stop.remote()

"""Train a run in the processes of torchrun, from its current position to its end."""

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from types import FrameType
from typing import Any

import torch

from cluster.cli.stop_signals import handled_by
from cluster.errors import UserError
from cluster.storage import os_errors
from cluster.storage.fence import active_fences
from pipeline.recipe import Recipe
from pipeline.runs.begin import Beginning, locked_run, log_plan
from pipeline.runs.log import RunLog
from pipeline.runs.store import kept_settings
from pipeline.runs.work import RunReporter, WorkerConfig, train_worker
from pipeline.torchrun.group import Group, Rank
from pipeline.training.distributed import DistributedContext
from pipeline.training.divergence import DivergenceError
from pipeline.training.position import START
from pipeline.training.reporter import StopDecision
from vdsm.memory import keep_freed_memory

log = logging.getLogger(__name__)


class TorchrunReporter(RunReporter):
    """A Reporter that logs in the process of rank 0, and stops after a signal to any rank."""

    def __init__(
        self, worker_config: WorkerConfig, world: DistributedContext, run_log: RunLog | None, stop: threading.Event
    ) -> None:
        super().__init__(worker_config, world)
        self._log, self._stop = run_log, stop

    def log(self, record: dict[str, Any]) -> None:
        """Log a record; called on rank 0 only."""
        assert self._log is not None, "only rank 0 logs"
        self._log.take(record)

    def should_stop(self) -> StopDecision:
        """Return whether some rank has received a signal, or a checkpoint is due."""
        stop, due = self._world.any_rank(self._stop.is_set(), self.is_save_due())
        return StopDecision(stop, due=due)


def train_recipe(recipe: Recipe, data: str, run: str, *, profile: bool = False) -> None:
    """Train the run at `run` to its end, or resume it from its newest checkpoint. Every rank calls it.

    The workers are those that torchrun started, whatever `training.num_workers` is. The first SIGTERM, SIGHUP or Ctrl-C
    saves a checkpoint and stops.

    Args:
        recipe: settings of the model and of the training.
        data: the dataset, as an absolute path or URL.
        run: folder of the run, as an absolute path or URL.
        profile: keep a trace of torch's profiler in the folder of the run.

    Raises:
        UserError: the run was started with other settings or data, or the training failed because of invalid input.
        KeyboardInterrupt: a signal, after a checkpoint was saved.
    """
    rank = Rank.of_environment()
    if not rank.is_first:
        logging.getLogger().setLevel(logging.WARNING)
    training = recipe.training
    try:
        training = replace(training, num_workers=rank.size, min_workers=None)
    except ValueError as error:
        raise UserError(f"torchrun started {rank.size} processes: training.{error}") from None
    recipe = recipe.model_copy(update={"training": training})
    torch.set_num_threads(training.threads_per_worker)
    keep_freed_memory()
    group = Group(rank, use_gpu=training.use_gpu, timeout_s=training.stall_timeout_s)
    with contextlib.ExitStack() as locked, _stop_signals() as stop:
        beginning: Beginning | None = None

        def prepare() -> dict[str, Any]:
            nonlocal beginning
            log_plan(recipe, data)
            beginning = locked.enter_context(locked_run(recipe, data, run))
            if beginning is None:
                return {}
            return {"manifest_sha256": beginning.manifest_sha256, "kept": kept_settings(beginning.recipe)}

        begun = group.begin(prepare)
        if not begun:  # finished
            return
        recipe = recipe.model_copy(update={"training": replace(training, **begun["kept"])})
        worker_config = WorkerConfig(
            recipe=recipe, data=data, manifest_sha256=begun["manifest_sha256"], run_url=run, profile=profile,
            fences=active_fences(),
        )  # fmt: skip
        run_log: RunLog | None = None
        if beginning is not None:
            settings = recipe.model_dump(mode="json")
            run_log = locked.enter_context(RunLog(run, training, beginning.position or START, settings))
        try:
            _train(worker_config, group, run_log, stop)
        finally:
            group.leave()
    log.info("finished: %s", run)


def _train(worker_config: WorkerConfig, group: Group, run_log: RunLog | None, stop: threading.Event) -> None:
    world = group.join()
    reporter = TorchrunReporter(worker_config, world, run_log, stop)
    try:
        with os_errors.explained("the worker's files"):
            outcome = train_worker(worker_config, reporter, world, socket.gethostname())
    except DivergenceError as error:  # raised on every rank
        if run_log is None:
            raise SystemExit(2) from None
        run_log.event("gave up", error=str(error))
        raise UserError(str(error)) from None
    if run_log is not None:
        run_log.end(outcome)
    elif not outcome.finished:
        raise KeyboardInterrupt


@contextlib.contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Set the event at a SIGTERM, SIGHUP or Ctrl-C within the block.

    A further one changes nothing: torchrun forwards what it receives, and a scheduler may send it to every process too.
    torchrun kills processes that do not end in time.
    """
    stop = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        if not stop.is_set() and os.environ.get("RANK") == "0":
            log.info("saving a checkpoint before stopping")
        stop.set()

    with handled_by(handle):
        yield stop

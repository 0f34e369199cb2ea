"""What every worker of a run does, whatever started it: read its input, resume, train, and keep checkpoints."""

import contextlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.fence import Fence
from cluster.storage.scratch import scratch_folder
from pipeline.recipe import Recipe
from pipeline.runs.checkpoints import CheckpointStore
from pipeline.training.broadcast import broadcast_state
from pipeline.training.distributed import DistributedContext
from pipeline.training.job import Job
from pipeline.training.loop import train_run
from pipeline.training.position import START, Outcome, TrainPosition
from pipeline.training.reporter import StopDecision
from pipeline.training.state import Provenance, TrainState


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


class RunReporter(ABC):
    """A Reporter that keeps checkpoints in the folder of the run. Subclasses pass records on and ask for stops."""

    def __init__(self, worker_config: WorkerConfig, world: DistributedContext) -> None:
        self._worker_config, self._world = worker_config, world
        self._store = CheckpointStore(worker_config.run_url, worker_config.recipe.training)
        self._saved_at = time.monotonic()

    @abstractmethod
    def log(self, record: dict[str, Any]) -> None:
        """Take a record."""

    @abstractmethod
    def should_stop(self) -> StopDecision:
        """Return whether to stop after this step, or to save now."""

    def is_save_due(self) -> bool:
        """Return true on rank 0, whose clock counts, if the last checkpoint is old; see `StopDecision.due`."""
        interval = self._worker_config.recipe.training.checkpoint_interval_s
        return bool(interval) and self._world.is_first and time.monotonic() - self._saved_at >= interval

    def save(self, state: TrainState, *, last: bool, audit: Sequence[Mapping[str, Any]] = ()) -> None:
        """Pass a checkpoint to the store; at the end of a stage wait until it is written."""
        self._saved_at = time.monotonic()
        self._store.save(state, last=last, audit=audit)
        position = state.position._asdict()
        self.log({"kind": "checkpoint", **position})
        if last:
            self._store.flush()
            self.log({"kind": "event", "event": "stage finished", **position})

    def restore(
        self, position: TrainPosition | None = None, *, before: TrainPosition | None = None
    ) -> TrainState | None:
        """Return a checkpoint, by default the newest intact one. Rank 0 reads it, and sends it to the other ranks."""
        state, error = None, None
        if self._world.is_first:
            self._store.flush()
            if position is None:
                position = self._store.newest(before)
            try:
                state = None if position is None else self._store.load(position)
            except ValueError as caught:
                error = caught
        reason = self._world.broadcast(None if error is None else str(error))
        if reason is not None:
            raise error or ValueError(reason)
        content = broadcast_state(None if state is None else state.to_dict(), self._world)
        return state if self._world.is_first or content is None else TrainState.from_dict(content)

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
        """Wait for the last checkpoint."""
        try:
            self._store.flush()
        finally:
            self._store.close()


def train_worker(worker_config: WorkerConfig, reporter: RunReporter, world: DistributedContext, node: str) -> Outcome:
    """Train on one rank, from the newest checkpoint of the run.

    Args:
        worker_config: what to train.
        reporter: takes the results.
        world: this rank and the number of ranks.
        node: name of this machine, for the log.

    Raises:
        UserError: the data or a checkpoint is not as it must be.
        DivergenceError: see `train_run`.
    """
    training = worker_config.recipe.training
    try:
        job = storage.retry_while_unreachable(lambda: _job(worker_config), training.storage_patience_s)
        resume = reporter.restore()
    except ValueError as error:
        raise UserError(str(error)) from error
    _log_start(reporter, world, resume, job.provenance, node)
    outcome = train_run(job, reporter, world, resume)
    reporter.close()
    return outcome


def _log_start(
    reporter: RunReporter, world: DistributedContext, resume: TrainState | None, provenance: Provenance, node: str
) -> None:
    processes = world.gather({"pid": os.getpid(), "node": node})
    if world.is_first:
        position = resume.position if resume else START
        event: dict[str, Any] = {"kind": "event", "event": "resume" if resume else "start", **position._asdict()}
        if provenance.start and resume is None:
            event["start_from"] = provenance.start["checkpoint"]
        reporter.log(event | {"workers": world.size, "processes": processes})


def _job(worker_config: WorkerConfig) -> Job:
    from pipeline.runs.held_out import run_held_out
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
        is_remote=storage.is_remote(worker_config.data),
        held_out=run_held_out(recipe, clips, run),
        pairs=run_pairs(recipe.training, clips, run),
        start_weights=(lambda: stored_weights(run)) if recipe.training.start_from else None,
        provenance=provenance,
    )

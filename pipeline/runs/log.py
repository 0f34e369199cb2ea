"""What the driver records and displays for a run: metrics.jsonl, events.jsonl, TensorBoard and the progress display."""

import contextlib
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from cluster.storage import api as storage
from cluster.storage import os_errors
from cluster.storage.errors import UnreachableError
from cluster.storage.fence import check_write
from cluster.storage.own_file import append_line
from cluster.storage.scratch import REMEDY, scratch_folder
from pipeline.runs.progress import TrainingProgress
from pipeline.training.config import TrainingConfig
from pipeline.training.outcome import Outcome
from pipeline.training.position import START, TrainPosition

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)

_TAGS = {
    "loss": "loss/annealed",
    "reconstruction": "loss/reconstruction",
    "kl_static": "kl/static",
    "kl_pose": "kl/pose",
    "kl_dynamics": "kl/dynamics",
    "static_consistency": "regulariser/static_consistency",
    "motion_consistency": "regulariser/motion_consistency",
    "dynamics_consistency": "regulariser/dynamics_consistency",
    "pose_distillation": "regulariser/pose_distillation",
    "weight_static": "weight/static",
    "weight_pose": "weight/pose",
    "weight_dynamics": "weight/dynamics",
    "temperature": "weight/temperature",
    "learning_rate": "optimiser/learning_rate",
    "gradient_norm": "optimiser/gradient_norm",
    "clips_per_s": "speed/clips_per_s",
    "data_wait_share": "speed/data_wait_share",
    "memory_gb": "speed/memory_gb",
}
CLOSING_PATIENCE_S = 60.0
"""Seconds for which the last upload of the logs is retried while storage is unreachable."""


class RunLog:
    """Takes the records of the workers, in order. A context manager. Raises MachineError if a log cannot be written.

    A run in S3 is logged to a local folder, which is uploaded with every checkpoint and at the end.

    Args:
        run_url: folder of the run.
        training: settings of the training.
        position: where the training starts, from which the progress display counts its phases.
    """

    def __init__(self, run_url: str, training: TrainingConfig, position: TrainPosition = START) -> None:
        self._url, self._training = run_url, training
        self._open = contextlib.ExitStack()
        self._is_remote = storage.is_s3(run_url)
        self._folder = self._open.enter_context(scratch_folder()) if self._is_remote else Path(run_url)
        with self._explained():
            self._folder.mkdir(parents=True, exist_ok=True)
        if self._is_remote:
            for name in ("metrics.jsonl", "events.jsonl"):
                if storage.exists(storage.join(run_url, name)):
                    storage.download(storage.join(run_url, name), self._folder / name)
        self._board: SummaryWriter | None = None
        self._progress = TrainingProgress(training, position)

    def __enter__(self) -> "RunLog":
        self._progress.display.__enter__()
        self._progress.start("starting workers")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.display.__exit__(kind, error, trace)
        with self._open:
            if self._board is not None:
                with self._explained():
                    self._board.close()
                self._board = None
            storage.retry_while_unreachable(self._upload, CLOSING_PATIENCE_S)

    def _explained(self) -> contextlib.AbstractContextManager[None]:
        return os_errors.explained(self._folder, REMEDY if self._is_remote else "")

    def take(self, record: Mapping[str, Any]) -> None:
        """Keep and show one record: `train`, `validation`, `images`, `checkpoint` or `event`, by its `kind`."""
        check_write(str(self._folder / "tensorboard"))
        with self._explained():
            self._take(record)

    def _take(self, record: Mapping[str, Any]) -> None:
        kind = record["kind"]
        if kind == "event":
            self._take_event(record)
        elif kind == "checkpoint":
            try:
                self._upload()
            except UnreachableError as error:  # they are uploaded with the next checkpoint
                logger.warning("logs not uploaded: %s", error)
        elif kind == "images":
            self._add_images(record)
        else:
            self._append("metrics.jsonl", record)
            self._add_scalars(record)
            self._progress.show(record)

    def event(self, event: str, **details: Any) -> None:
        """Record an event of the driver itself."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with self._explained():
            self._append("events.jsonl", {"time": now, "event": event, **details})

    def end(self, outcome: Outcome) -> None:
        """Record the end of a training.

        Raises:
            KeyboardInterrupt: it was stopped before its end.
        """
        self.event("finished" if outcome.finished else "stopped", stage=outcome.stage, step=outcome.step)
        if not outcome.finished:
            logger.info("stopped at stage %d, step %d", outcome.stage, outcome.step)
            raise KeyboardInterrupt

    def _take_event(self, record: Mapping[str, Any]) -> None:
        event = record["event"]
        details = {name: value for name, value in record.items() if name not in ("kind", "event")}
        if event == "failure":
            logger.warning("a worker failed (%s); restarting the workers from the last checkpoint", record["error"])
            self._progress.start("restarting workers")
        elif event == "fitting priors":
            logger.info("fitting the priors that codes are sampled from")
        elif event == "priors not fitted":
            logger.warning("priors not fitted: %s; samples will be drawn from the published priors", record["reason"])
        elif event == "divergence":
            logger.warning("%s", record["error"])
        elif event in ("start", "resume", "rollback", "preemption notice"):
            position = TrainPosition(record["stage"], record["step"])
            if event == "rollback":
                factor, number = record["rate_factor"], record["number"]
                logger.warning("rolled back to %s; learning rate scaled by %g (rollback %d)", position, factor, number)
            elif event == "preemption notice":
                logger.warning("preemption notice received; saved a checkpoint at %s", position)
            elif position > START:
                logger.info("resuming from %s", position)
            if event != "preemption notice":
                self._rewind(position)
        self.event(event, **details)

    def _rewind(self, position: TrainPosition) -> None:
        """Drop what was logged after `position`, because those steps will be repeated."""
        path = self._folder / "metrics.jsonl"
        if path.is_file():
            storage.write_bytes(str(path), "".join(f"{line}\n" for line in lines_until(path, position)).encode())
        if self._board is not None:
            self._board.close()
        from torch.utils.tensorboard import SummaryWriter

        overall = position.overall_step(self._training)
        self._board = SummaryWriter(str(self._folder / "tensorboard"), purge_step=overall + 1)
        self._progress.rewind(position)

    def _append(self, name: str, record: Mapping[str, Any]) -> None:
        path = self._folder / name
        check_write(str(path))
        append_line(path, json.dumps(dict(record)))

    def _add_scalars(self, record: Mapping[str, Any]) -> None:
        if self._board is None:
            return
        prefix = "validation/" if record["kind"] == "validation" else ""
        tags = {"elbo": "elbo", **_TAGS} if prefix else _TAGS
        for name, tag in tags.items():
            if name in record:
                self._board.add_scalar(prefix + tag, record[name], record["overall_step"])
        self._board.flush()

    def _add_images(self, record: Mapping[str, Any]) -> None:
        if self._board is None:
            return
        for name, image in record["images"].items():
            tag = f"stage {record['stage']}/{name}"
            self._board.add_image(tag, image, record["overall_step"], dataformats="HWC")
        self._board.flush()

    def _upload(self) -> None:
        if not self._is_remote:
            return
        for path in self._folder.rglob("*"):
            if path.is_file():
                storage.upload(path, storage.join(self._url, path.relative_to(self._folder).as_posix()))


def lines_until(path: Path, position: TrainPosition) -> list[str]:
    """Return the lines of a metrics.jsonl up to a position, without those that are incomplete or no records."""
    kept = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
            if (int(record["stage"]), int(record["step"])) <= position:
                kept.append(line)
        except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError):
            continue
    return kept

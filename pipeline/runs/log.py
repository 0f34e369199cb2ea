"""What the driver records and displays for a run: metrics.jsonl, events.jsonl, trackers and the progress display."""

import contextlib
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from cluster.errors import masked
from cluster.storage import api as storage
from cluster.storage import os_errors
from cluster.storage.errors import MissingFileError, UnreachableError
from cluster.storage.fence import check_write
from cluster.storage.own_file import append_line
from cluster.storage.scratch import REMEDY, scratch_folder
from pipeline.runs.log_upload import EVENTS, METRICS, GrowingLog, read_log
from pipeline.runs.progress import TrainingProgress
from pipeline.trackers.registry import fetch_files, tracked_run
from pipeline.trackers.rows import records_of
from pipeline.trackers.tracker import NETWORKED
from pipeline.trackers.tracking import Tracking
from pipeline.training.config import TrainingConfig
from pipeline.training.position import START, Outcome, TrainPosition

logger = logging.getLogger(__name__)

BOARD = "tensorboard"
BOARD_BYTES = 256_000
"""Length above which TensorBoard's records continue in another file, of a run in S3."""
CLOSING_PATIENCE_S = 60.0
"""Seconds for which trackers get their last rows, and the last upload of the logs is retried while storage is
unreachable."""


class RunLog:
    """Takes the records of the workers, in order. A context manager. Raises MachineError if a log cannot be written.

    A run in S3 is logged to a local folder. With every checkpoint and at the end, what is new in it is uploaded: see
    `pipeline.runs.log_upload`.

    Args:
        run_url: folder of the run.
        training: settings of the training.
        position: where the training starts, from which the progress display counts its phases.
        settings: the recipe, which trackers show.
    """

    def __init__(
        self,
        run_url: str,
        training: TrainingConfig,
        position: TrainPosition = START,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._url, self._training, self._settings = run_url, training, settings or {}
        self._open = contextlib.ExitStack()
        self._is_remote = storage.is_remote(run_url)
        self._folder = self._open.enter_context(scratch_folder()) if self._is_remote else Path(run_url)
        with self._explained():
            self._folder.mkdir(parents=True, exist_ok=True)
        self._growing = {
            name: GrowingLog(self._folder / name, storage.join(run_url, name)) for name in (METRICS, EVENTS)
        }
        self._uploaded: dict[Path, tuple[int, int]] = {}
        """Length and time of change of every other file when it was uploaded."""
        if self._is_remote:
            for name in self._growing:
                with self._explained(), contextlib.suppress(MissingFileError):
                    (self._folder / name).write_bytes(read_log(storage.join(run_url, name)))
        self._tracking: Tracking | None = None
        self._progress = TrainingProgress(training, position)

    def __enter__(self) -> "RunLog":
        with contextlib.ExitStack() as on_error:
            on_error.push(self._open)
            self._tracking = self._open_trackers()
            on_error.pop_all()
        self._progress.display.__enter__()
        self._progress.start("starting workers")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.display.__exit__(kind, error, trace)
        with self._open:
            if self._tracking is not None:
                with self._explained():
                    self._tracking.close(CLOSING_PATIENCE_S)
                self._tracking = None
            storage.retry_while_unreachable(lambda: self._upload(complete=True), CLOSING_PATIENCE_S)

    def _open_trackers(self) -> Tracking:
        names = self._training.trackers
        if not set(names) & set(NETWORKED):
            return Tracking(names, None, self._folder)
        if self._is_remote:
            fetch_files(self._url, self._folder)
        return Tracking(names, tracked_run(self._url, self._folder, masked(self._settings)), self._folder)

    def _explained(self) -> contextlib.AbstractContextManager[None]:
        return os_errors.explained(self._folder, REMEDY if self._is_remote else "")

    def take(self, record: Mapping[str, Any]) -> None:
        """Keep and show one record: `train`, `validation`, `images`, `checkpoint` or `event`, by its `kind`."""
        check_write(str(self._folder / BOARD))
        with self._explained():
            self._take(record)

    def _take(self, record: Mapping[str, Any]) -> None:
        kind = record["kind"]
        if kind == "event":
            self._take_event(record)
        elif kind == "checkpoint":
            if self._tracking is not None:
                self._tracking.complete()
            try:
                self._upload()
            except UnreachableError as error:  # they are uploaded with the next checkpoint
                logger.warning("logs not uploaded: %s", error)
        else:
            if kind != "images":
                self._append(METRICS, record)
                self._progress.show(record)
            if self._tracking is not None:
                self._tracking.take(record)

    def event(self, event: str, **details: Any) -> None:
        """Record an event of the driver itself."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with self._explained():
            self._append(EVENTS, {"time": now, "event": event, **details})

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
        elif event == "inferring latents":
            logger.info("encoding each training clip once for stage 2 (%g GB)", record["needed_gb"])
        elif event == "latents not stored":
            logger.warning(
                "stage 2 encodes the clips in every step: their latents take %g GB, training.latent_memory_gb is %g",
                record["needed_gb"], record["latent_memory_gb"],
            )  # fmt: skip
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
        path = self._folder / METRICS
        if path.is_file():
            storage.write_bytes(str(path), "".join(f"{line}\n" for line in lines_until(path, position)).encode())
            self._growing[METRICS].rewritten()
        if self._tracking is not None:
            self._tracking.rewind(position.overall_step(self._training), records_of(path))
        self._progress.rewind(position)

    def _append(self, name: str, record: Mapping[str, Any]) -> None:
        path = self._folder / name
        check_write(str(path))
        append_line(path, json.dumps(masked(record)))  # errors quote addresses

    def _upload(self, *, complete: bool = False) -> None:
        if not self._is_remote:
            return
        for log in self._growing.values():
            log.upload(complete=complete)
        with self._tracking.paused() if self._tracking is not None else contextlib.nullcontext():
            longest = self._upload_changed()
        # A file that has grown would be uploaded again with all that it holds: begin another; TensorBoard reads all.
        if longest > BOARD_BYTES and self._tracking is not None:
            self._tracking.continue_board()

    def _upload_changed(self) -> int:
        """Upload the other files that changed; return the length of the longest of TensorBoard's among them."""
        longest, logs = 0, {self._folder / name for name in self._growing}
        for path in self._folder.rglob("*"):
            if path in logs or path.is_symlink() or not path.is_file():
                continue
            state = path.stat().st_size, path.stat().st_mtime_ns
            if state != self._uploaded.get(path):
                storage.upload(path, storage.join(self._url, path.relative_to(self._folder).as_posix()))
                self._uploaded[path] = state
                longest = max(longest, state[0] if path.parent.name == BOARD else 0)
        return longest


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

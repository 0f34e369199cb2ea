"""The checkpoints of a run: written atomically while the training continues, and older ones deleted afterwards.

A checkpoint exists once its file has its final name: a local file is renamed when it is synced to disk, an object in S3
appears with its last part. Only then is an older one deleted, so that one to resume from exists at any time. Each
file carries the SHA-256 of its content, and no list of them is kept anywhere.
"""

import json
import logging
import queue
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from cluster.storage import api as storage
from cluster.storage import os_errors
from cluster.storage.errors import MissingFileError
from cluster.storage.fence import active_fences, check_write, fenced
from cluster.storage.scratch import REMEDY, scratch_folder
from pipeline.runs.checkpoint_file import check_name, damage_of
from pipeline.training.config import TrainingConfig
from pipeline.training.position import TrainPosition
from pipeline.training.state import TrainState
from vdsm import checkpoint

FOLDER = "checkpoints"
_NAME = re.compile(r"stage(\d)-step(\d+)\.pt")

R = TypeVar("R")

logger = logging.getLogger(__name__)


def file_name(position: TrainPosition) -> str:
    """Return the file name of the checkpoint of `position`."""
    return f"stage{position.stage}-step{position.step:08d}.pt"


def position_of(name: str) -> TrainPosition | None:
    """Return the position in a checkpoint's file name; None for any other name."""
    match = _NAME.fullmatch(name)
    return TrainPosition(int(match[1]), int(match[2])) if match else None


def stage_file(run_url: str, stage: int) -> str:
    """Return the path or URL of the last checkpoint of a stage."""
    return storage.join(run_url, f"stage{stage}.pt")


def checkpoints(run_url: str, training: TrainingConfig) -> dict[TrainPosition, str]:
    """Return the paths or URLs of all checkpoints of a run, by position."""
    return dict(reversed(_newest_first(run_url, training)))


def _newest_first(run_url: str, training: TrainingConfig) -> list[tuple[TrainPosition, str]]:
    """Return position and path or URL of all checkpoints of a run; the end of a stage may exist twice."""
    folder, found = storage.join(run_url, FOLDER), []
    if storage.is_remote(run_url) or Path(folder).is_dir():
        for name in storage.list_files(folder):
            position = position_of(name)
            if position is not None:
                found.append((position, storage.join(folder, name)))
    for stage in (1, 2):
        if storage.exists(stage_file(run_url, stage)):
            found.append((TrainPosition(stage, training.stage(stage).steps), stage_file(run_url, stage)))
    return sorted(found, key=lambda entry: entry[0], reverse=True)


def newest_intact(run_url: str, training: TrainingConfig) -> TrainPosition | None:
    """Return the position of the newest checkpoint that is not damaged.

    Raises:
        UserError: it is of another position than its name says.
    """
    for position, url in _newest_first(run_url, training):
        with scratch_folder() as scratch:
            path = local_copy(url, scratch)
            if damage_of(url, path) is None:
                check_name(url, path, position)
                return position
    return None


def is_end(position: TrainPosition | None, training: TrainingConfig) -> bool:
    """Return whether a run at `position` has finished its selected stages."""
    last = training.selected_stages[-1]
    return position is not None and position >= TrainPosition(last, training.stage(last).steps)


def local_copy(url: str, scratch: Path) -> Path:
    """Return the path of `url` if it is local, else download it to `scratch`."""
    if not storage.is_remote(url):
        return Path(url)
    path = scratch / Path(url).name
    storage.download(url, path)
    return path


def copy_to_cpu(value: Any) -> Any:
    """Return a deep copy of a state with all tensors on the CPU, which later steps do not change."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {name: copy_to_cpu(item) for name, item in value.items()}
    return [copy_to_cpu(item) for item in value] if isinstance(value, list) else value


def _save_fenced(content: Mapping[str, Any], path: Path) -> None:
    """Save a checkpoint to a local path, unless the lock of the run is lost meanwhile: saving may take long."""
    written = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        checkpoint.save(content, written)
        check_write(str(path))
        written.replace(path)
    finally:
        written.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Pending:
    """A checkpoint that waits to be written."""

    content: dict[str, Any]
    position: TrainPosition
    best: frozenset[TrainPosition]
    last: bool
    audit: Sequence[Mapping[str, Any]]


class CheckpointStore:
    """Saves and finds the checkpoints of one run. Rank 0 saves; every rank may load.

    It waits for unreachable storage up to `training.storage_patience_s`. An error while a checkpoint is being written
    is raised by the next call.
    """

    def __init__(self, run_url: str, training: TrainingConfig) -> None:
        self._url, self._training, self._fences = run_url, training, active_fences()
        self._waiting: queue.Queue[_Pending | None] = queue.Queue(maxsize=1)
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def save(self, state: TrainState, *, last: bool, audit: Sequence[Mapping[str, Any]] = ()) -> None:
        """Copy `state` and write it in a thread; wait only for the checkpoint before it.

        Args:
            state: the checkpoint.
            last: whether it is the last of its stage, which is kept permanently.
            audit: lines for the audit file of the steps since the last checkpoint.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_all, name="checkpoints", daemon=True)
            self._thread.start()
        best = frozenset(TrainPosition(stage, best.step) for stage, best in state.best_validation.items())
        pending = _Pending(copy_to_cpu(state.to_dict()), state.position, best, last, audit)
        self.flush()
        self._waiting.put(pending)

    def flush(self) -> None:
        """Wait until every saved checkpoint is written. Raise the error of one that was not."""
        self._waiting.join()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def close(self) -> None:
        """Wait for the checkpoint being written, and end the thread."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
            self._thread = None

    def newest(self, before: TrainPosition | None = None) -> TrainPosition | None:
        """Return the position of the newest intact checkpoint, or of the newest before a position.

        Delete those after it: damaged ones, and unwanted ones from `before` on. The last one of a stage is copied to
        the file of the stage if that is missing.
        """
        return self._patiently(lambda: self._newest(before))

    def warn_of_damage(self) -> None:
        """Log which files of stages are damaged. The last stage is intact; it does not depend on those before."""
        for stage in self._training.selected_stages:
            url = stage_file(self._url, stage)
            if storage.exists(url):
                with scratch_folder() as scratch:
                    if damage := damage_of(url, local_copy(url, scratch)):
                        logger.warning("%s", damage)

    def load(self, position: TrainPosition) -> TrainState:
        """Return the checkpoint of `position`.

        Raises:
            ValueError: it is missing, damaged or of a later version; the message names the file.
        """
        return self._patiently(lambda: self._load(position))

    def _newest(self, before: TrainPosition | None) -> TrainPosition | None:
        for position, url in _newest_first(self._url, self._training):
            if before is None or position < before:
                with scratch_folder() as scratch, os_errors.explained(url):
                    path = local_copy(url, scratch)
                    damage = damage_of(url, path)
                    if damage is None:
                        self._keep_stage(position, url, path)
                        return position
                    logger.warning("%s", damage)
            storage.delete(url)
        return None

    def _keep_stage(self, position: TrainPosition, url: str, path: Path) -> None:
        """Store the file of a stage that ended at `position`, if a killed or damaged run lacks it."""
        target = stage_file(self._url, position.stage)
        if position.step == self._training.stage(position.stage).steps and url != target:
            storage.upload(path, target)

    def _load(self, position: TrainPosition) -> TrainState:
        url = checkpoints(self._url, self._training).get(position)
        url = url or storage.join(self._url, FOLDER, file_name(position))
        with scratch_folder() as scratch, os_errors.explained(url):
            try:
                content = checkpoint.load(local_copy(url, scratch))
            except MissingFileError:
                raise ValueError(f"{url}: no such checkpoint; it was deleted while it was needed, so rerun") from None
        try:
            return TrainState.from_dict(content)
        except ValueError as error:
            raise ValueError(f"{url}: {error}") from None

    def _write_all(self) -> None:
        with fenced(*self._fences):  # the thread may outlive the block that fenced its worker
            self._write_waiting()

    def _write_waiting(self) -> None:
        while (pending := self._waiting.get()) is not None:
            try:
                self._write(pending)
            except BaseException as error:  # raised by the next call
                self._error = error
            finally:
                del pending
                self._waiting.task_done()
        self._waiting.task_done()

    def _write(self, pending: _Pending) -> None:
        name = file_name(pending.position)
        if pending.audit:
            lines = "".join(json.dumps(dict(line)) + "\n" for line in pending.audit).encode()
            url = storage.join(self._url, "audit", name.replace(".pt", ".jsonl"))
            self._patiently(lambda: storage.write_bytes(url, lines))
        target = storage.join(self._url, FOLDER, name)
        self._patiently(lambda: check_write(target))
        with scratch_folder() as scratch:
            path = scratch / "state.pt"
            if storage.is_remote(self._url):
                with os_errors.explained(path, REMEDY):
                    checkpoint.save(pending.content, path)
                self._patiently(lambda: storage.upload(path, target))
            else:
                path = Path(target)
                with os_errors.explained(path):
                    _save_fenced(pending.content, path)
            if pending.last:
                self._patiently(lambda: storage.upload(path, stage_file(self._url, pending.position.stage)))
        self._patiently(lambda: self._delete_old(pending.best))

    def _delete_old(self, best: Iterable[TrainPosition]) -> None:
        """Delete all checkpoints but the newest few and the best of each stage."""
        folder = storage.join(self._url, FOLDER)
        positions = sorted(p for name in storage.list_files(folder) if (p := position_of(name)) is not None)
        for position in positions[: -self._training.keep_checkpoints]:
            if position not in best:
                storage.delete(storage.join(folder, file_name(position)))

    def _patiently(self, action: Callable[[], R]) -> R:
        return storage.retry_while_unreachable(action, self._training.storage_patience_s)

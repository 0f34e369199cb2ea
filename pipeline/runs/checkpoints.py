"""The checkpoints of a run: written while the training goes on, whole or not there, the old ones deleted afterwards.

A checkpoint counts once its file has its name: a local file is renamed when it is on the disk, an object in S3 appears
with its last part. Only then is an older one deleted, so that at any instant there is one to go on from. Each stands
for itself, with the SHA-256 of its content, and no list of them is kept anywhere.
"""

import json
import logging
import queue
import re
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from pipeline.training.config import TrainingConfig
from pipeline.training.job import TrainPosition, stage_config
from vdsm import checkpoint

FOLDER = "checkpoints"
_NAME = re.compile(r"stage(\d)-step(\d+)\.pt")

R = TypeVar("R")

logger = logging.getLogger(__name__)


def file_name(place: TrainPosition) -> str:
    """Name of the checkpoint of `place`."""
    return f"stage{place.stage}-step{place.step:08d}.pt"


def place_of(name: str) -> TrainPosition | None:
    """The inverse of `file_name`; none for any other name."""
    match = _NAME.fullmatch(name)
    return TrainPosition(int(match[1]), int(match[2])) if match else None


def stage_file(run_url: str, stage: int) -> str:
    """Where the end of a stage is kept."""
    return storage.join(run_url, f"stage{stage}.pt")


def checkpoints(run_url: str, training: TrainingConfig) -> dict[TrainPosition, str]:
    """All checkpoint files of the run, with the place that each holds."""
    folder, found = storage.join(run_url, FOLDER), {}
    if storage.is_s3(run_url) or Path(folder).is_dir():
        for name in storage.list_files(folder):
            place = place_of(name)
            if place is not None:
                found[place] = storage.join(folder, name)
    for stage in (1, 2):
        if storage.exists(stage_file(run_url, stage)):
            found[TrainPosition(stage, stage_config(training, stage).steps)] = stage_file(run_url, stage)
    return found


def local_copy(url: str, scratch: Path) -> Path:
    """`url` itself if it is local, else a copy of it under `scratch`."""
    if not storage.is_s3(url):
        return Path(url)
    path = scratch / Path(url).name
    storage.download(url, path)
    return path


def on_cpu(value: Any) -> Any:
    """A copy of a state, with all tensors on the CPU, that later steps do not change."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {name: on_cpu(item) for name, item in value.items()}
    return [on_cpu(item) for item in value] if isinstance(value, list) else value


class CheckpointStore:
    """Saves and finds the checkpoints of one run. Rank 0 saves; every rank may load.

    Where storage is unreachable it waits, for `training.storage_patience_s`. What goes wrong while a checkpoint is
    being written is raised by the next call.
    """

    def __init__(self, run_url: str, training: TrainingConfig) -> None:
        self._url, self._training = run_url, training
        self._waiting: queue.Queue[tuple[dict[str, Any], TrainPosition, bool, Sequence[Mapping[str, Any]]] | None]
        self._waiting = queue.Queue(maxsize=1)
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def save(
        self, state: Mapping[str, Any], place: TrainPosition, *, last: bool, audit: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Takes a copy of `state` and writes it in a thread; waits only for the copy before it. `last`: the end of a
        stage, which is kept for good."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_all, name="checkpoints", daemon=True)
            self._thread.start()
        copied = on_cpu(state)
        self.flush()
        self._waiting.put((copied, place, last, audit))

    def flush(self) -> None:
        """Waits until everything saved is kept. Raises what went wrong."""
        self._waiting.join()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def close(self) -> None:
        """Waits for what is being written, and ends the thread."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
            self._thread = None

    def newest(self, before: TrainPosition | None = None) -> TrainPosition | None:
        """The newest whole checkpoint, or the newest before a place. Deletes those after it: damaged ones, and from
        `before` on ones that are not wanted."""
        return self._patiently(lambda: self._newest(before))

    def load(self, place: TrainPosition) -> dict[str, Any]:
        """The checkpoint of `place`. ValueError, with its name, if it is missing or damaged."""
        return self._patiently(lambda: self._load(place))

    def _newest(self, before: TrainPosition | None) -> TrainPosition | None:
        # The end of a stage may be there twice: each look finds one of the two.
        while found := checkpoints(self._url, self._training):
            place = max(found)
            if before is None or place < before:
                try:
                    with tempfile.TemporaryDirectory() as scratch:
                        checkpoint.verify(local_copy(found[place], Path(scratch)))
                    return place
                except ValueError as error:
                    logger.warning("%s", error)
            storage.delete(found[place])
        return None

    def _load(self, place: TrainPosition) -> dict[str, Any]:
        url = checkpoints(self._url, self._training).get(place) or storage.join(self._url, FOLDER, file_name(place))
        with tempfile.TemporaryDirectory() as scratch:
            try:
                return checkpoint.load(local_copy(url, Path(scratch)))
            except MissingFileError:
                raise ValueError(f"{url}: no such checkpoint; it was deleted while it was needed") from None

    def _write_all(self) -> None:
        while (item := self._waiting.get()) is not None:
            try:
                self._write(*item)
            except BaseException as error:  # raised by the next call
                self._error = error
            finally:
                del item
                self._waiting.task_done()
        self._waiting.task_done()

    def _write(
        self, state: Mapping[str, Any], place: TrainPosition, last: bool, audit: Sequence[Mapping[str, Any]]
    ) -> None:
        if audit:
            lines = "".join(json.dumps(dict(line)) + "\n" for line in audit).encode()
            url = storage.join(self._url, "audit", file_name(place).replace(".pt", ".jsonl"))
            self._patiently(lambda: storage.write_bytes(url, lines))
        target = storage.join(self._url, FOLDER, file_name(place))
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "state.pt" if storage.is_s3(self._url) else Path(target)
            checkpoint.save(state, path)
            if storage.is_s3(self._url):
                self._patiently(lambda: storage.upload(path, target))
            if last:
                self._patiently(lambda: storage.upload(path, stage_file(self._url, place.stage)))
        bests = {TrainPosition(int(stage), int(step)) for stage, (step, _) in state.get("bests", {}).items()}
        self._patiently(lambda: self._retire(bests))

    def _retire(self, bests: set[TrainPosition]) -> None:
        """Deletes all checkpoints but the newest few and the best of each stage."""
        folder = storage.join(self._url, FOLDER)
        places = sorted(place for name in storage.list_files(folder) if (place := place_of(name)) is not None)
        for place in places[: -self._training.keep_checkpoints]:
            if place not in bests:
                storage.delete(storage.join(folder, file_name(place)))

    def _patiently(self, action: Callable[[], R]) -> R:
        return storage.patiently(action, self._training.storage_patience_s)

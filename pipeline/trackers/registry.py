"""Which trackers there are, and what they need."""

import contextlib
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.errors import UserError
from cluster.extras import require
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from pipeline.trackers.feed import Feed
from pipeline.trackers.rows import SAMPLES
from pipeline.trackers.tracker import NETWORKED, TrackedRun, Tracker
from pipeline.training.config import TrackerName

IDENTITY = "trackers.json"
"""File in the folder of a run: its id for trackers."""
FOLDER = "trackers"
"""Folder in that of a run for the files of trackers that have no server."""
_ID = re.compile(r"[a-z0-9]{4,64}")


def check_installed(names: Sequence[TrackerName]) -> None:
    """Check that the libraries of trackers are installed.

    Raises:
        UserError: one is not; the message names the extra that installs it.
    """
    for name in names:
        require(name)


def tracked_run(url: str, folder: Path, settings: Mapping[str, Any]) -> TrackedRun:
    """Return a run as its trackers know it; its id is drawn and stored when it is first asked for.

    Args:
        url: the run.
        folder: local folder of its files: itself, or a copy of a run in S3.
        settings: its recipe.

    Raises:
        UserError: the stored id is damaged.
    """
    path = storage.join(url, IDENTITY)
    with contextlib.suppress(MissingFileError):
        return TrackedRun(id=_read_id(path), name=_name(url), folder=folder / FOLDER, settings=settings)
    storage.write_bytes(path, json.dumps({"id": uuid.uuid4().hex[:16]}).encode())
    return tracked_run(url, folder, settings)


def fetch_files(url: str, folder: Path) -> None:
    """Copy the files of trackers, and the sample images, of a run in S3 to a local folder."""
    for part in (FOLDER, SAMPLES):
        source = storage.join(url, part)
        for name in storage.list_files(source):
            storage.download(storage.join(source, name), folder / part / name)


def _name(url: str) -> str:
    return url.rstrip("/").rpartition("/")[2]


def _read_id(path: str) -> str:
    content = storage.read_bytes(path)
    with contextlib.suppress(ValueError, LookupError, TypeError, RecursionError):
        found = json.loads(content)["id"]
        if _ID.fullmatch(found):
            return str(found)
    raise UserError(f"{path} is damaged; delete it, and the run has new curves in its trackers")


def open_feeds(names: Sequence[TrackerName], run: TrackedRun) -> list[Feed]:
    """Open all trackers but TensorBoard for a run.

    Raises:
        UserError: a library is not installed, or a tracker does not respond or refuses it.
    """
    check_installed(names)
    opened: list[tuple[str, Tracker]] = []
    try:
        for name in NETWORKED:
            if name in names:
                opened.append((name, _open(name, run)))
    except UserError:
        for _, tracker in opened:
            with contextlib.suppress(Exception):  # the first error is the one to show
                tracker.close()
        raise
    return [Feed(name, tracker) for name, tracker in opened]


def _open(name: TrackerName, run: TrackedRun) -> Tracker:
    if name == "wandb":
        from pipeline.trackers.wandb_run import WandbRun

        return WandbRun(run)
    if name == "mlflow":
        from pipeline.trackers.mlflow_run import MlflowRun

        return MlflowRun(run)
    assert name == "trackio", "TensorBoard is written by `Tracking`"
    from pipeline.trackers.trackio_run import TrackioRun

    return TrackioRun(run)

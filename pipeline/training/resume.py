"""Where a run goes on, whatever killed it.

Ray Train keeps a list of the checkpoints it knows in a snapshot file, writes it in place, and refuses to start with a
damaged one. Every checkpoint of ours stands for itself, so a snapshot that cannot be used is put aside and the newest
whole checkpoint is taken.
"""

import json
import logging
import tempfile
from pathlib import Path
from typing import NamedTuple

from cluster import storage
from pipeline.training.config import TrainingConfig
from pipeline.training.run_store import CHECKPOINTS, STATE, Place, checkpoints, local_copy, place_of
from vdsm.checkpoint import verify

SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Ray Train's list of checkpoints, in the folder of checkpoints."""

logger = logging.getLogger(__name__)


class Resumption(NamedTuple):
    """Where to go on."""

    place: Place | None
    """None: from the beginning."""
    fallback: str | None
    """The checkpoint file to take where Ray Train knows of none."""


def find(run_url: str, training: TrainingConfig) -> Resumption:
    """Where the run at `run_url` goes on. Puts an unusable snapshot of Ray Train aside."""
    import ray

    snapshot = storage.join(run_url, CHECKPOINTS, SNAPSHOT)
    if storage.exists(snapshot):
        place = _latest(run_url, storage.read_bytes(snapshot), ray.__version__)
        if place is not None:
            return Resumption(place, None)
        logger.warning("%s cannot be used; going on from the newest whole checkpoint", snapshot)
        storage.delete(snapshot)
    found = checkpoints(run_url, training)
    for place in sorted(found, reverse=True):
        if _is_whole(found[place]):
            return Resumption(place, found[place])
    return Resumption(None, None)


def _latest(run_url: str, snapshot: bytes, ray_version: str) -> Place | None:
    """The newest checkpoint of a snapshot; none if the snapshot or one of its checkpoints cannot be used."""
    try:
        content = json.loads(snapshot)
        names = [result["checkpoint_dir_name"] for result in content["checkpoint_results"]]
        latest: str = content["latest_checkpoint_result"]["checkpoint_dir_name"]
        usable = content["ray_version"] == ray_version and latest in names
    except (ValueError, KeyError, TypeError):
        return None
    files = {name: storage.join(run_url, CHECKPOINTS, name, STATE) for name in names}
    if usable and all(map(storage.exists, files.values())) and _is_whole(files[latest]):
        return place_of(latest)
    return None


def _is_whole(url: str) -> bool:
    with tempfile.TemporaryDirectory() as scratch:
        try:
            verify(local_copy(url, Path(scratch)))
        except ValueError as error:
            logger.warning("%s", error)
            return False
    return True

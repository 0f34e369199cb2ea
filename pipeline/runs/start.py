"""Warm start of a run: the weights of another run, copied into its folder when it is started.

<out>/<name>/start.json     the checkpoint that they are from
             start.pt       the initial weights, as a checkpoint file

Workers read the copy, so every rank on every machine starts from the same bytes, and what happens to the other run
afterwards does not matter.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage import os_errors
from cluster.storage.errors import MissingFileError
from cluster.storage.scratch import scratch_folder
from pipeline.recipe import Recipe
from pipeline.runs.checkpoints import checkpoints, local_copy
from pipeline.runs.store import load_run, read_model
from pipeline.training.state import TrainState
from vdsm import checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from vdsm.disentangler import Disentangler

ORIGIN = "start.json"
WEIGHTS = "start.pt"
"""Written after `start.json`, so it marks the copy as complete."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WarmStart:
    """Initial weights of a run, and where they are from."""

    weights: "Mapping[str, Tensor]"
    model_config: Mapping[str, Any]
    """Settings of the model that they are from, as plain values."""
    origin: Mapping[str, Any]
    """Its `checkpoint`, `checkpoint_sha256`, `stage` and `step`, as plain values."""
    notes: tuple[str, ...]
    """What was not loaded, and which settings differ."""

    def describe(self) -> list[str]:
        """Return lines that say what the training starts from."""
        where = f"{self.origin['checkpoint']} (stage {self.origin['stage']}, step {self.origin['step']})"
        return [f"start: {len(self.weights):,} weights of {where}", *(f"start: {note}" for note in self.notes)]


def new_start(recipe: Recipe, run: str | None) -> WarmStart | None:
    """Return the weights that a new run is to start from; None without a warm start, or if it was started before.

    Args:
        recipe: settings of the run.
        run: its folder; None if it is not known yet.

    Raises:
        UserError: the model is missing or damaged, or does not fit the recipe.
    """
    training = recipe.training
    if training.start_from is None:
        return None
    if run is not None and (storage.exists(storage.join(run, WEIGHTS)) or checkpoints(run, training)):
        return None
    from vdsm.warm_start import start_weights

    model, origin = _open(training.start_from)
    try:
        found = start_weights(model, recipe.model, sequence_stage=origin["stage"] >= 2)
    except ValueError as error:
        raise UserError(f"training.start_from is {training.start_from}: {error}") from None
    return WarmStart(found.weights, asdict(model.config), origin, found.notes)


def keep_start(run: str, start: WarmStart | None) -> None:
    """Copy the initial weights into the folder of a run, if there are any."""
    if start is None:
        return
    for line in start.describe():
        log.info("%s", line)
    storage.write_bytes(storage.join(run, ORIGIN), (json.dumps(dict(start.origin), indent=1) + "\n").encode())
    content = {checkpoint.MODEL_CONFIG: dict(start.model_config), checkpoint.WEIGHTS: dict(start.weights)}
    with scratch_folder() as scratch:
        checkpoint.save(content, scratch / WEIGHTS)
        storage.upload(scratch / WEIGHTS, storage.join(run, WEIGHTS))


def stored_origin(run: str, recipe: Recipe) -> dict[str, Any]:
    """Return the origin of the initial weights of a run; empty without a warm start."""
    if recipe.training.start_from is None:
        return {}
    url = storage.join(run, ORIGIN)
    try:
        origin: dict[str, Any] = dict(json.loads(storage.read_bytes(url)))
    except MissingFileError:
        raise UserError(f"{url} is missing; restore it, or train again under another name") from None
    except (ValueError, TypeError, RecursionError):
        raise UserError(f"{url} is damaged; restore it, or train again under another name") from None
    return origin


def stored_weights(run: str) -> "Mapping[str, Tensor]":
    """Return the copy of the initial weights in the folder of a run.

    Raises:
        UserError: it is missing or damaged.
    """
    url = storage.join(run, WEIGHTS)
    with scratch_folder() as scratch, os_errors.explained(url):
        path = local_copy(url, scratch)
        try:
            weights: Mapping[str, Tensor] = checkpoint.load(path)[checkpoint.WEIGHTS]
        except (ValueError, KeyError) as error:
            reason = str(error).replace(str(path), url).partition("; ")[0]
            raise UserError(f"{reason}; train again under another name") from None
    return weights


def _open(url: str) -> "tuple[Disentangler, dict[str, Any]]":
    """Return the model of a run, or of one of its checkpoints, and its origin."""
    if not url.endswith(".pt") or (not storage.is_remote(url) and Path(url).is_dir()):
        model, _, origin = load_run(url)
        if not origin["finished"]:
            log.warning("%s is not finished; its newest checkpoint is used", url)
        return model, {name: origin[name] for name in ("checkpoint", "checkpoint_sha256", "stage", "step")}
    try:
        model, content, digest = read_model(url)
        position = TrainState.from_dict(content).position
    except MissingFileError:
        raise UserError(f"{url}: no such checkpoint; name a run, or a checkpoint of one") from None
    except ValueError as error:
        raise UserError(f"{url}: {error}") from error
    return model, {"checkpoint": url, "checkpoint_sha256": digest, **position._asdict()}

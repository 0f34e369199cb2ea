"""The folder of a run, local or in S3: what it contains, and whether it can be resumed.

<out>/<name>/run.json       the data it was trained on; its presence makes the folder a run
             config.yaml    the resolved recipe
             start.json     with a warm start: the checkpoint whose weights were the initial ones
             start.pt       these weights
             checkpoints/   stage1-step00000200.pt, ...
             stage1.pt      the last checkpoint of each stage, kept permanently
             stage2.pt
             metrics.jsonl  a line per log interval and per validation; see also `pipeline.runs.log_upload`
             events.jsonl   starts, resumptions, stage changes, failures, rollbacks, the end
             tensorboard/
             samples/       sample images and animations of validation clips
             trackers.json  with trackers other than TensorBoard: the id of the run in them
             trackers/      their files, of those that have no server
             audit/         which clips each worker trained on, if training.audit is set
             profile/       traces, if --profile is given
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from cluster.cli.former_names import with_current_names
from cluster.cli.paths import expand_home
from cluster.cli.recipe_file import leaves
from cluster.cli.settings import Tree, check_numbers
from cluster.cli.yaml_file import parse_mapping, to_yaml
from cluster.errors import UserError, first_line
from cluster.storage import api as storage
from cluster.storage import os_errors
from cluster.storage.errors import MissingFileError
from cluster.storage.scratch import scratch_folder
from pipeline.recipe import Recipe
from pipeline.runs.checkpoint_file import misnamed
from pipeline.runs.checkpoints import checkpoints, is_end, local_copy, newest_intact
from pipeline.training.config import TrainingConfig
from pipeline.training.position import TrainPosition
from vdsm import checkpoint

if TYPE_CHECKING:
    from vdsm.disentangler import Disentangler

_MUTABLE = {
    *("stages", "num_workers", "min_workers", "resize_interval_s", "threads_per_worker", "use_gpu", "worker_resource"),
    *("compile", "static_graph", "shard_optimiser", "stage1.accumulation", "stage2.accumulation", "deterministic"),
    *("cache_gb", "audit", "validation_interval", "checkpoint_interval", "checkpoint_interval_s", "keep_checkpoints"),
    *(
        "log_interval",
        "picture_interval",
        "trackers",
        "max_failures",
        "max_rollbacks",
        "stall_timeout_s",
        "storage_patience_s",
    ),
}
"""Settings of the training section that may change on resumption: they do not change the result, except for the
rounding of sums over workers."""

KEPT: Mapping[str, Any] = {"noise": "global", "order": "blocks", "validation_clips": None}
"""Settings of the training section that a run keeps, and what they are in a run that is older than them: other values
than the defaults of today, with which it would not end with the same weights or compare the same validations."""


class RunDescription(BaseModel):
    """Content of run.json."""

    model_config = ConfigDict(frozen=True)

    data: str = Field(pattern=r"^[^\x00]+$")
    """The dataset, as it was named when the run was started."""
    data_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """See `data_hash`."""


def run_url(out: str, name: str) -> str:
    """Return the absolute folder of run `name` under `out`.

    Raises:
        UserError: `name` is not a plain folder name.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UserError(
            f"--name {name!r} must consist of letters, digits, '.', '_' and '-', and start with a letter or digit"
        )
    return storage.join(absolute(out), name)


def absolute(url: str) -> str:
    """Return `url` as an absolute path, which processes in any working folder can use; an S3 URL is left unchanged."""
    return url if storage.is_remote(url) else str(Path(expand_home(url)).resolve())


def data_hash(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a dataset's content: the hashes of its shards, and its vocabulary."""
    # The JSON of [[[path, hash], ...], vocabulary], piece by piece: there may be a million shards.
    digest, between = hashlib.sha256(b"[["), b""
    for shard in manifest["shards"]:
        digest.update(between + json.dumps([shard["path"], shard["sha256"]]).encode())
        between = b", "
    digest.update(f"], {json.dumps(manifest['vocabulary'], sort_keys=True)}]".encode())
    return digest.hexdigest()


def open_run(url: str, recipe: Recipe, data: str, manifest: Mapping[str, Any]) -> bool:
    """Create the run at `url`, or check that it was started with the same settings and data.

    Returns:
        Whether the run existed.

    Raises:
        UserError: the run cannot be resumed; the message names what changed.
    """
    description = {"format": 1, "data": data, "data_sha256": data_hash(manifest)}
    exists = storage.exists(storage.join(url, "run.json"))
    recipe = as_started(url, recipe)
    if exists:
        changes = changed_settings(url, recipe, str(description["data_sha256"]))
        if changes:
            raise UserError(
                f"{url}: this run was started with other settings: {'; '.join(changes)}; "
                "restore them, or give the new run another --name"
            )
    storage.write_bytes(storage.join(url, "config.yaml"), to_yaml(recipe.model_dump(mode="json")).encode())
    if not exists:
        storage.write_bytes(storage.join(url, "run.json"), json.dumps(description, indent=1).encode())
    return exists


def as_started(url: str, recipe: Recipe) -> Recipe:
    """Return a recipe with what the run at `url`, if it has begun, keeps whatever the recipe says; see `KEPT`."""
    if not storage.exists(storage.join(url, "run.json")):
        return recipe
    kept = kept_settings(read_recipe(url))
    return recipe.model_copy(update={"training": replace(recipe.training, **kept)})


def kept_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the settings of the training section that a run keeps."""
    return {name: getattr(recipe.training, name) for name in KEPT}


def changed_settings(url: str, recipe: Recipe, data_sha256: str | None) -> list[str]:
    """Return what has changed since the run at `url` was started, of all that affects its result.

    Args:
        url: folder of the run.
        recipe: the current recipe.
        data_sha256: `data_hash` of the current dataset; None if it is not known.
    """
    changes = _changes(read_recipe(url), as_started(url, recipe))
    if data_sha256 is not None and read_description(url).data_sha256 != data_sha256:
        changes.append("the content of the dataset")
    return changes


def read_description(url: str) -> RunDescription:
    """Return the content of run.json.

    Raises:
        UserError: there is no run at `url`, or the file is damaged.
    """
    try:
        return RunDescription.model_validate_json(storage.read_bytes(storage.join(url, "run.json")))
    except MissingFileError:
        raise UserError(f"{url}: there is no run here; name the folder that `vdsm train` wrote, <out>/<name>") from None
    except ValueError:
        raise UserError(f"{url}/run.json is damaged; train again under another name") from None


def read_recipe(url: str) -> Recipe:
    """Return the recipe of a run, whose settings may have former names, and which may lack later ones.

    Raises:
        UserError: it is not a recipe of this version.
    """
    path = storage.join(url, "config.yaml")
    try:
        tree = parse_mapping(storage.read_bytes(path), path)
        if not tree:
            raise ValueError("it is empty")
        recipe = Recipe.model_validate(_with_kept(with_current_names(tree, Recipe, source=path, warn=False)))
    except ValueError as error:
        raise UserError(f"{path} is not a recipe of this version ({first_line(error)})") from None
    check_numbers(recipe, lambda _: f" (in {path})")
    return recipe


def _changes(old: Recipe, new: Recipe) -> list[str]:
    before, after = dict(leaves(old.model_dump(mode="json"))), dict(leaves(new.model_dump(mode="json")))
    return [
        f"{name} {before.get(name)} -> {after.get(name)}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) and _affects_result(name, new.training)
    ]


def _affects_result(name: str, training: TrainingConfig) -> bool:
    section, _, rest = name.partition(".")
    if rest == "validation_interval" and training.stage2_start == "best":
        return True  # it decides which checkpoints are compared
    return name == "seed" or section == "model" or (section == "training" and rest not in _MUTABLE)


def is_finished(url: str, training: TrainingConfig) -> bool:
    """Return whether the run has an intact checkpoint of the end of its last selected stage."""
    return is_end(newest_intact(url, training), training)


LoadedRun: TypeAlias = "tuple[Disentangler, Recipe, dict[str, Any]]"
"""A model, its recipe and its origin, as `load_run` returns them."""


def load_run(url: str) -> LoadedRun:
    """Return the newest model of a run, its recipe, and its origin; see `read_run`."""
    return read_run(url)[0]


def read_run(url: str) -> tuple[LoadedRun, dict[str, Any]]:
    """Return the newest model of a run, its recipe, and its origin; and the content of the checkpoint.

    The origin has the keys `run`, `stage`, `step`, `finished`, `checkpoint`, `checkpoint_sha256`, `data` and
    `data_sha256` (see `data_hash`).

    Raises:
        UserError: there is no run or no checkpoint, or the checkpoint is damaged, or not of this run.
    """
    url = absolute(url)
    description, recipe = read_description(url), read_recipe(url)
    found = checkpoints(url, recipe.training)
    if not found:
        raise UserError(f"{url}: this run has no checkpoint yet; train it further")
    newest = max(found)
    file = found[newest]
    model, content, digest = read_model(file)
    position = TrainPosition(*(checkpoint.position_of(content) or newest))
    if position.stage != newest.stage:  # an adapted model may be of an earlier step than the end of its stage
        raise misnamed(file, position, newest)
    _check_settings(file, content, model, recipe)
    origin = {
        "run": url,
        "stage": position.stage,
        "step": position.step,
        "finished": is_end(position, recipe.training),
        "checkpoint": file,
        "checkpoint_sha256": digest,
        "data": description.data,
        "data_sha256": description.data_sha256,
    }
    return (model, recipe, origin), content


def read_model(url: str) -> "tuple[Disentangler, dict[str, Any], str]":
    """Return the model of the checkpoint at `url`, the content of the checkpoint, and its SHA-256.

    Raises:
        MissingFileError: it is in S3, and does not exist.
        UserError: it is missing or damaged.
    """
    with scratch_folder() as scratch, os_errors.explained(url):
        path = local_copy(url, scratch)
        try:
            digest, content = checkpoint.verify(path), checkpoint.load(path)
            return checkpoint.disentangler_of(content, path), content, digest
        except ValueError as error:
            raise UserError(str(error).replace(str(path), url)) from error


def _check_settings(url: str, content: Mapping[str, Any], model: "Disentangler", recipe: Recipe) -> None:
    """Raise UserError if a checkpoint is of a run with other settings."""
    changes = [] if model.config == recipe.model else ["model"]
    with contextlib.suppress(ValueError, TypeError, UserError):  # of another version, which says nothing of the run
        trained = _with_kept(with_current_names(dict(content.get("recipe") or {}), Recipe, warn=False))
        changes = _changes(Recipe.model_validate(trained), recipe) if trained else changes
    if changes:
        raise UserError(
            f"{url}: is a checkpoint of another run: config.yaml beside it differs by {'; '.join(changes[:5])}; "
            "restore the file that was here"
        )


def _with_kept(tree: Tree) -> Tree:
    """Return the settings of a run, with those that a run keeps and that its version did not have; see `KEPT`."""
    if isinstance(training := tree.get("training"), dict):
        for name, value in KEPT.items():
            training.setdefault(name, value)
    return tree

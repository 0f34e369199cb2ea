"""The folder of a run, local or in S3: what is in it, and where a run goes on.

<out>/<name>/run.json       the data it was trained on, versions; its presence makes the folder a run
             config.yaml    the recipe, resolved
             checkpoints/   stage1-step00000200.pt, ...
             stage1.pt      the end of each stage, always kept
             stage2.pt
             metrics.jsonl  a line for every progress line and every validation
             events.jsonl   starts, resumptions, stage changes, failures, rollbacks, the end
             tensorboard/
             audit/         which clips each worker trained on, where that is asked for
             profile/       traces, where they are asked for
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from pipeline.recipe import Recipe
from pipeline.runs.checkpoints import checkpoints, local_copy, stage_file
from pipeline.training.config import TrainingConfig

if TYPE_CHECKING:
    from vdsm.disentangler import Disentangler

_FREE = {
    *("stages", "num_workers", "min_workers", "resize_interval_s", "threads_per_worker", "use_gpu", "worker_resource"),
    *("compile", "static_graph", "shard_optimiser", "stage1.accumulation", "stage2.accumulation"),
    *("cache_gb", "audit", "validation_interval", "checkpoint_interval", "keep_checkpoints", "log_interval"),
    *("picture_interval", "max_failures", "max_rollbacks", "stall_timeout_s", "storage_patience_s"),
}
"""Settings of the training section that do not change what is learned (but for the rounding of sums over workers)."""


def run_url(out: str, name: str) -> str:
    """The folder of run `name` under `out`, absolute. UserError for a name that is no plain folder name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UserError(f"--name {name!r} must be letters, digits, '.', '_' and '-', and begin with a letter or digit")
    return storage.join(absolute(out), name)


def absolute(url: str) -> str:
    """`url` as every process can use it, whatever folder it runs in."""
    return url if storage.is_s3(url) else str(Path(url).expanduser().resolve())


def data_hash(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of what a dataset holds: the hashes of its shards, and its vocabulary."""
    shards = [[shard["path"], shard["sha256"]] for shard in manifest["shards"]]
    content = json.dumps([shards, manifest["vocabulary"]], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def open_run(url: str, recipe: Recipe, data: str, manifest: Mapping[str, Any]) -> bool:
    """Begins the run at `url`, or checks that the one there was begun with the same settings and data.

    Returns whether it was there. Raises UserError, naming what changed, if it cannot be gone on with.
    """
    description = {"format": 1, "data": data, "data_sha256": data_hash(manifest)}
    there = storage.exists(storage.join(url, "run.json"))
    if there:
        changes = changes_of(url, recipe, str(description["data_sha256"]))
        if changes:
            raise UserError(
                f"{url}: this run was begun with other settings, which changed: {'; '.join(changes)}; "
                "go back to the old ones or give the new run another --name"
            )
    text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=100)
    storage.write_bytes(storage.join(url, "config.yaml"), text.encode())
    if not there:
        storage.write_bytes(storage.join(url, "run.json"), json.dumps(description, indent=1).encode())
    return there


def changes_of(url: str, recipe: Recipe, data_sha256: str | None) -> list[str]:
    """What was different when the run at `url` was begun, of all that decides its result; `data_sha256` as `data_hash`
    gives it, where it is known."""
    changes = _changes(read_recipe(url), recipe)
    if data_sha256 is not None and read_description(url)["data_sha256"] != data_sha256:
        changes.append("the content of the dataset")
    return changes


def read_description(url: str) -> dict[str, Any]:
    """The content of run.json. UserError if there is no run at `url`."""
    try:
        description: dict[str, Any] = json.loads(storage.read_bytes(storage.join(url, "run.json")))
    except MissingFileError:
        raise UserError(f"{url}: there is no run here; name the folder that `vdsm train` wrote, <out>/<name>") from None
    except ValueError:
        raise UserError(f"{url}/run.json is damaged; train again under another name") from None
    return description


def read_recipe(url: str) -> Recipe:
    """The recipe of a run."""
    place = storage.join(url, "config.yaml")
    try:
        return Recipe.model_validate(yaml.safe_load(storage.read_bytes(place)))
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{place}: is not a recipe of this version ({str(error).splitlines()[0]})") from None


def _changes(old: Recipe, new: Recipe) -> list[str]:
    before, after = dict(_leaves(old.model_dump(mode="json"))), dict(_leaves(new.model_dump(mode="json")))
    return [
        f"{name} {before.get(name)} -> {after.get(name)}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) and _matters(name, new.training)
    ]


def _matters(name: str, training: TrainingConfig) -> bool:
    section, _, rest = name.partition(".")
    if rest == "validation_interval" and training.stage2_start == "best":
        return True  # it decides which checkpoints are compared
    return name == "seed" or section == "model" or (section == "training" and rest not in _FREE)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def is_finished(url: str, training: TrainingConfig) -> bool:
    """Whether the run has the end of the last stage that it is asked for."""
    return storage.exists(stage_file(url, 1 if training.stages == "1" else 2))


def load_run(url: str) -> tuple["Disentangler", Recipe, dict[str, Any]]:
    """The newest model of a run, its recipe, and where it comes from.

    The last item has the keys `run`, `stage`, `step`, `finished`, `checkpoint`, `checkpoint_sha256`, `data`,
    `data_sha256` (as `data_hash` gives it). Raises UserError where there is no run, no checkpoint, or a damaged one.
    """
    from vdsm import checkpoint

    url = absolute(url)
    description, recipe = read_description(url), read_recipe(url)
    found = checkpoints(url, recipe.training)
    if not found:
        raise UserError(f"{url}: this run has no checkpoint yet; train it further")
    place = max(found)
    with tempfile.TemporaryDirectory() as scratch:
        path = local_copy(found[place], Path(scratch))
        try:
            digest = checkpoint.verify(path)
            model = checkpoint.load_disentangler(path)
        except ValueError as error:
            raise UserError(str(error).replace(str(path), found[place])) from error
    info = {
        "run": url,
        "stage": place.stage,
        "step": place.step,
        "finished": is_finished(url, recipe.training),
        "checkpoint": found[place],
        "checkpoint_sha256": digest,
        "data": description["data"],
        "data_sha256": description["data_sha256"],
    }
    return model, recipe, info

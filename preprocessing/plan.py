"""Which clips go into which shard, decided before any work and from inputs and configuration alone.

The plan is stored beside the shards it describes, so that a later run can tell whether it continues the same dataset.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from cluster import storage
from cluster.errors import UserError
from preprocessing.clip import Item, Source
from preprocessing.config import DataRecipe

FORMAT = 1
"""Version of the dataset's format; raised when shards or their index change."""
FILE = "plan.json"
SPLITS = ("train", "test")


@dataclass(frozen=True)
class ShardPlan:
    """One shard to be written."""

    path: str
    """Below the dataset's URL, such as `train/shard-000000.tar`."""
    split: str
    """`train` or `test`."""
    items: tuple[Item, ...]
    """What goes in, in this order."""

    @property
    def stats_path(self) -> str:
        """Path of the shard's index, whose presence says that the shard is whole."""
        return stats_path(self.path)


@dataclass(frozen=True)
class Plan:
    """All shards of a dataset and what they depend on."""

    configuration: dict[str, Any]
    """The settings that change the bytes."""
    fingerprint: str
    """SHA-256 of the source's inputs."""
    shards: tuple[ShardPlan, ...]

    def content(self) -> dict[str, Any]:
        """The plan as it is stored."""
        shards = [{"path": shard.path, "items": [item.key for item in shard.items]} for shard in self.shards]
        return {
            "schema_version": FORMAT,
            "configuration": self.configuration,
            "source_sha256": self.fingerprint,
            "shards": shards,
        }

    def sha256(self) -> str:
        """Identity of the plan; every shard's index repeats it."""
        return hashlib.sha256(encode(self.content())).hexdigest()


def stats_path(shard_path: str) -> str:
    """`train/shard-000000.tar` -> `train/shard-000000.json`."""
    return shard_path.removesuffix(".tar") + ".json"


def encode(content: dict[str, Any]) -> bytes:
    """JSON whose bytes depend on the content and its order only."""
    return (json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n").encode()


def make_plan(recipe: DataRecipe, source: Source) -> Plan:
    """Pack the items of a source into shards, mixed, so that neighbours in the source do not share a shard.

    Raises:
        UserError: the source has nothing, or nothing to train on.
    """
    items = source.items()
    shards: list[ShardPlan] = []
    for split in SPLITS:
        mine = [item for item in items if item.split == split]
        if not mine:
            raise UserError(f"source {recipe.source.name}: no input goes to the {split} split; give more input")
        mine.sort(key=lambda item: _draw(recipe.seed, item.key))
        for number, group in enumerate(_pack(mine, recipe.shards.target_mb * 1e6)):
            shards.append(ShardPlan(path=f"{split}/shard-{number:06d}.tar", split=split, items=tuple(group)))
    return Plan(configuration=_configuration(recipe), fingerprint=source.fingerprint(), shards=tuple(shards))


def _draw(seed: int, key: str) -> bytes:
    """A place in a random order. A hash, so that the order is the same under every version of every library."""
    return hashlib.sha256(f"{seed}/{key}".encode()).digest()


def _pack(items: list[Item], target_bytes: float) -> list[list[Item]]:
    """Consecutive groups, each closed once it reaches the target."""
    groups: list[list[Item]] = [[]]
    filled = 0
    for item in items:
        if filled >= target_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(item)
        filled += item.estimated_bytes
    return groups


def _configuration(recipe: DataRecipe) -> dict[str, Any]:
    """The part of a recipe that decides the bytes: neither where inputs lie, nor how many tasks run at once, nor the
    settings of sources that are not used."""
    source = recipe.source.model_dump(mode="json")
    used = {name: source[name] for name in ("name", recipe.source.name) if name in source}
    return {"seed": recipe.seed, "source": used, "shards": {"target_mb": recipe.shards.target_mb}}


def claim(url: str, plan: Plan) -> None:
    """Store `plan` at `url` before any shard is written, or check that what is there was begun with the same plan.

    Raises:
        UserError: the folder holds a dataset of other settings or inputs (the difference is named), or other files.
    """
    try:
        stored = json.loads(storage.read_bytes(storage.join(url, FILE)))
    except storage.MissingFile:
        if storage.exists(storage.join(url, "manifest.json")):
            raise UserError(f"{url} holds a dataset without its {FILE}; choose another --out") from None
        storage.write_bytes(storage.join(url, FILE), encode(plan.content()))
        return
    except ValueError:
        raise UserError(f"{url}/{FILE} is not JSON; choose another --out, or remove that folder") from None
    changed = differences(stored, json.loads(encode(plan.content())))
    if changed:
        raise UserError(
            f"{url} was begun with other settings or inputs: {'; '.join(changed)}; choose another --out, or go back to "
            "what it was begun with"
        )


def differences(stored: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """What separates two stored plans, in words; empty if nothing does."""
    found = []
    for key in ("schema_version", "configuration"):
        found += _compare(key, stored.get(key), wanted[key])
    if stored.get("source_sha256") != wanted["source_sha256"] and not found:
        found.append("the contents of the source's files changed")
    if not found and stored != wanted:
        found.append("the source lists other items")
    return found


def _compare(path: str, stored: Any, wanted: Any) -> list[str]:
    if isinstance(stored, dict) and isinstance(wanted, dict):
        names = sorted(stored.keys() | wanted.keys())
        return [line for name in names for line in _compare(f"{path}.{name}", stored.get(name), wanted.get(name))]
    if stored == wanted:
        return []
    return [f"{path.removeprefix('configuration.')} was {stored}, is now {wanted}"]


def estimate(plan: Plan) -> dict[str, dict[str, float | int | None]]:
    """Per split: shards, items, clips (None where unknown beforehand) and MB."""
    result: dict[str, dict[str, float | int | None]] = {}
    for split in SPLITS:
        shards = [shard for shard in plan.shards if shard.split == split]
        items = [item for shard in shards for item in shard.items]
        counts = [item.clips for item in items]
        result[split] = {
            "shards": len(shards),
            "items": len(items),
            "clips": None if None in counts else sum(count for count in counts if count is not None),
            "mb": sum(item.estimated_bytes for item in items) / 1e6,
        }
    return result

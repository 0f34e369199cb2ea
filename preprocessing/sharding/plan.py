"""Which clips go into which shard, decided before any work and from inputs and configuration alone.

Inputs are listed, never opened: a shard's size follows from what the listing estimates of each input.
"""

import functools
import hashlib
import json
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cluster.errors import UserError
from preprocessing.clip import SPLITS, Item, Source
from preprocessing.recipe import DataRecipe
from preprocessing.sources.config import SourceConfig

FORMAT = 2
"""Version of the dataset's format; raised when shards, their index or the manifest change."""
_JSON = json.JSONEncoder(separators=(",", ":"), allow_nan=False)  # made once: there may be a million lines


@dataclass(frozen=True, slots=True)
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

    @property
    def estimated_bytes(self) -> int:
        """Size of its clips, as estimated."""
        return sum(item.estimated_bytes for item in self.items)


@dataclass(frozen=True)
class Plan:
    """All shards of a dataset and what they depend on."""

    configuration: dict[str, Any]
    """The settings that change the bytes."""
    fingerprint: str
    """SHA-256 of what all inputs share."""
    shards: tuple[ShardPlan, ...]

    @functools.cached_property
    def identity(self) -> str:
        """SHA-256 of the plan; every shard's index repeats it."""
        return hashlib.sha256(encode(self.content())).hexdigest()

    def content(self) -> dict[str, Any]:
        """The plan as it is stored: what it depends on, without the long list of inputs."""
        return {
            "schema_version": FORMAT,
            "configuration": self.configuration,
            "source_sha256": self.fingerprint,
            "shards": len(self.shards),
            "inputs": sum(len(shard.items) for shard in self.shards),
            "inputs_sha256": self._inputs_sha256,
        }

    @functools.cached_property
    def _inputs_sha256(self) -> str:
        digest = hashlib.sha256()
        for shard in self.shards:
            for item in shard.items:
                digest.update(encode(list_item(item, version=False)))
        return digest.hexdigest()

    def groups(self) -> dict[str, int]:
        """Number of groups in each split; `make_plan` has seen to it that none is in two."""
        return {
            split: len(
                {item.group or item.key for shard in self.shards if shard.split == split for item in shard.items}
            )
            for split in SPLITS
        }


def stats_path(shard_path: str) -> str:
    """`train/shard-000000.tar` -> `train/shard-000000.json`."""
    return shard_path.removesuffix(".tar") + ".json"


def encode(content: Any) -> bytes:
    """JSON whose bytes depend on the content and its order only."""
    return (_JSON.encode(content) + "\n").encode()


def list_item(item: Item, *, version: bool) -> list[Any]:
    """What the list of inputs says of one: key, path, split, group, estimated bytes, detail, if wanted version."""
    listed = [item.key, item.path, item.split, item.group, item.estimated_bytes, item.detail]
    return [*listed, item.version] if version else listed


def make_plan(recipe: DataRecipe, source: Source) -> Plan:
    """Pack the items of a source into shards, mixed, so that neighbours in the source do not share a shard.

    Raises:
        UserError: the source has nothing, or nothing to train on; two items have one key, or two splits share a group.
    """
    items = source.items()
    check_groups((item.key, item.split, item.group) for item in items)
    shards: list[ShardPlan] = []
    for split in SPLITS:
        mine = [item for item in items if item.split == split]
        if not mine:
            raise UserError(f"source {recipe.source.name}: no input goes to the {split} split; give more input")
        mine.sort(key=lambda item: _draw(recipe.seed, item.key))
        for number, group in enumerate(_pack(mine, recipe.shards.target_mb * 1e6)):
            shards.append(ShardPlan(path=f"{split}/shard-{number:06d}.tar", split=split, items=tuple(group)))
    return Plan(_configuration(recipe, untrusted=source.untrusted), source.fingerprint(), tuple(shards))


def check_groups(items: Iterator[tuple[str, str, str]]) -> None:
    """UserError if, among (key, split, group), a key appears twice or a group in two splits."""
    keys: set[str] = set()
    home: dict[str, str] = {}
    for key, split, group in items:
        if key in keys:
            raise UserError(f"two inputs have the key {key}; rename one of them")
        keys.add(key)
        other = home.setdefault(group or key, split)
        if other != split:
            raise UserError(f"group {group or key} is in two splits, {split} (input {key}) and {other}")


def _draw(seed: int, key: str) -> bytes:
    """A place in a random order. A hash, so that the order is the same under every version of every library."""
    return hashlib.sha256(f"{seed}/{key}".encode()).digest()[:16]


def _pack(items: list[Item], target_bytes: float) -> Iterator[list[Item]]:
    """Consecutive groups of about the target size, all of much the same size, so that the last is no tiny one."""
    total = sum(item.estimated_bytes for item in items)
    count = max(1, round(total / target_bytes))
    group: list[Item] = []
    place = begin = 0
    for item in items:
        # Where an item begins tells its group; an item larger than the target leaves the next places empty.
        if group and begin * count // max(1, total) != place:
            yield group
            group = []
        place = begin * count // max(1, total)
        group.append(item)
        begin += item.estimated_bytes
    yield group


def _configuration(recipe: DataRecipe, *, untrusted: bool) -> dict[str, Any]:
    """The part of a recipe that decides the bytes: neither where inputs lie, nor how many tasks run at once, nor the
    settings of sources that are not used. The limits of decoding count where an input can fail by them."""
    kinds = set(typing.get_args(SourceConfig.model_fields["name"].annotation)) - {recipe.source.name}
    source = recipe.source.model_dump(mode="json", exclude=kinds | {"path"})
    names = {"target_mb", *(("decode_seconds", "decode_mb") if untrusted else ())}
    return {"seed": recipe.seed, "source": source, "shards": recipe.shards.model_dump(mode="json", include=names)}


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

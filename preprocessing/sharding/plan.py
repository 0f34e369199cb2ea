"""The plan: which inputs go into which shard, decided before any work from the inputs and the settings alone.

Inputs are listed, never opened: the size of a shard is estimated from the listing.
"""

import functools
import hashlib
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from cluster.errors import UserError
from preprocessing.clip import SPLITS, Item, Source
from preprocessing.dataset.disjoint import check_groups
from preprocessing.dataset.format import COLUMNAR, VERSION, InputLine, StoredPlan, encode_json, index_path, shard_path
from preprocessing.recipe import DataRecipe
from preprocessing.sources.config import FiguresConfig, SourceConfig

MOST_JSON_CLIPS = 100_000
"""Largest plan, in clips, of which `shards.format: auto` makes format 2: about 300 shards, read in two seconds."""


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """A shard to be written."""

    path: str
    """Path below the dataset's URL, such as `train/shard-000000.tar`."""
    split: str
    """`train` or `test`."""
    items: tuple[Item, ...]
    """The inputs, in the order in which they are written."""
    version: int = VERSION
    """Version of the format."""

    @property
    def index_path(self) -> str:
        """Path of the shard's index below the dataset's URL."""
        return index_path(self.path)


@dataclass(frozen=True)
class Plan:
    """All shards of a dataset and everything their bytes depend on."""

    configuration: dict[str, Any]
    """The settings that decide the bytes."""
    fingerprint: str
    """SHA-256 of what all inputs share."""
    shards: tuple[ShardPlan, ...]
    version: int = VERSION
    """Version of the format of the dataset."""

    def of_version(self, version: int) -> "Plan":
        """Return the plan of the same shards in another format."""
        if version == self.version:
            return self
        shards = tuple(replace(shard, version=version) for shard in self.shards)
        return replace(self, shards=shards, version=version)

    @property
    def listed_clips(self) -> int:
        """Number of clips as far as the listing gives it; an input of unknown length counts as one."""
        return _listed_clips(item for shard in self.shards for item in shard.items)

    @functools.cached_property
    def identity(self) -> str:
        """SHA-256 of the stored plan; every shard's index repeats it."""
        return hashlib.sha256(encode_json(self.content())).hexdigest()

    def content(self) -> StoredPlan:
        """Return the plan as it is stored."""
        return {
            "schema_version": self.version,
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
                digest.update(encode_json(input_line(item, version=False)))
        return digest.hexdigest()

    def inputs(self) -> dict[str, int]:
        """Return the number of inputs in each split."""
        return {split: sum(len(shard.items) for shard in self.shards if shard.split == split) for split in SPLITS}

    def groups(self) -> dict[str, int]:
        """Return the number of groups in each split; `make_plan` has checked that none is in two."""
        return {
            split: len(
                {item.group or item.key for shard in self.shards if shard.split == split for item in shard.items}
            )
            for split in SPLITS
        }


def input_line(item: Item, *, version: bool) -> InputLine:
    """Return the line of `inputs.jsonl` for an input, with or without its last field, the version."""
    listed = [item.key, item.path, item.split, item.group, item.estimated_bytes, item.detail]
    return [*listed, item.version] if version else listed


def make_plan(recipe: DataRecipe, source: Source) -> Plan:
    """Pack the items of a source into shards, in a random order, so that neighbours in the source are separated.

    Raises:
        UserError: a split has no input that counts, two items have the same key, or a group is in two splits.
    """
    items = source.items()
    version = _version(recipe, items)
    check_groups((item.key, item.split, item.group) for item in items)
    shards: list[ShardPlan] = []
    for split in SPLITS:
        members = [item for item in items if item.split == split]
        if all(item.doubt for item in members):
            raise UserError(_explain_empty(recipe.source.name, split, items))
        members.sort(key=lambda item: _draw(recipe.seed, item.key))
        for number, group in enumerate(_pack(members, recipe.shards.target_mb * 1e6)):
            path = shard_path(split, number)
            shards.append(ShardPlan(path=path, split=split, items=tuple(group), version=version))
    settings = _configuration(recipe, untrusted=source.untrusted)
    return Plan(settings, source.fingerprint(), tuple(shards), version=version)


def _version(recipe: DataRecipe, items: list[Item]) -> int:
    """Return the format that a dataset of these inputs gets if it is new."""
    if recipe.shards.format != "auto":
        return recipe.shards.format
    return COLUMNAR if _listed_clips(items) > MOST_JSON_CLIPS else VERSION


def _listed_clips(items: Iterable[Item]) -> int:
    return sum(item.clips or 1 for item in items)


def _explain_empty(source: str, split: str, items: list[Item]) -> str:
    doubtful = [item for item in items if item.doubt]
    message = f"source {source}: no input goes to the {split} split; "
    if not doubtful:
        return f"{message}add more inputs"
    return (
        f"{message}of {len(items):,} inputs, {len(doubtful):,} do not count, for example {doubtful[0].path}: "
        f"{doubtful[0].doubt}; fix them, or add inputs of more identities"
    )


def _draw(seed: int, key: str) -> bytes:
    """Return a sort key for a random order. A hash, so that no version of any library changes the order."""
    return hashlib.sha256(f"{seed}/{key}".encode()).digest()[:16]


def _pack(items: list[Item], target_bytes: float) -> Iterator[list[Item]]:
    """Yield consecutive groups of about the target size, all of similar size, so that the last one is not tiny."""
    total = sum(item.estimated_bytes for item in items)
    count = max(1, round(total / target_bytes))
    group: list[Item] = []
    number = begin = 0
    for item in items:
        # An item's offset decides its group; an item larger than the target leaves the next numbers unused.
        if group and begin * count // max(1, total) != number:
            yield group
            group = []
        number = begin * count // max(1, total)
        group.append(item)
        begin += item.estimated_bytes
    yield group


def _configuration(recipe: DataRecipe, *, untrusted: bool) -> dict[str, Any]:
    """Return the settings that decide the bytes.

    Excluded are the location of the inputs, the number of tasks, and the settings of other sources. The limits of
    decoding are included where they can cause an input to be rejected.
    """
    unused = set(typing.get_args(SourceConfig.model_fields["name"].annotation)) - {recipe.source.name}
    source = recipe.source.model_dump(mode="json", exclude=unused | {"path"})
    # Left out where they change nothing, so that datasets of earlier versions are those of the same settings.
    if recipe.source.repeat == 1:
        del source["repeat"]
    if recipe.source.name == "figures" and recipe.source.figures.size == FiguresConfig().size:
        del source["figures"]["size"]
    names = {"target_mb", *(("decode_seconds", "decode_mb") if untrusted else ())}
    return {"seed": recipe.seed, "source": source, "shards": recipe.shards.model_dump(mode="json", include=names)}


@dataclass(frozen=True)
class SplitEstimate:
    """The expected size of a split."""

    shards: int
    inputs: int
    clips: int | None
    """None where the listing does not give the number of clips."""
    bytes: int


def estimate(plan: Plan) -> dict[str, SplitEstimate]:
    """Return the expected size of each split."""
    result = {}
    for split in SPLITS:
        shards = [shard for shard in plan.shards if shard.split == split]
        items = [item for shard in shards for item in shard.items]
        counts = [item.clips for item in items]
        result[split] = SplitEstimate(
            shards=len(shards),
            inputs=len(items),
            clips=None if None in counts else sum(count for count in counts if count is not None),
            bytes=sum(item.estimated_bytes for item in items),
        )
    return result

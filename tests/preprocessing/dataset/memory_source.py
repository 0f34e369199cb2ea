"""Sources whose clips are in memory, drawn by hypothesis, and the datasets written from them."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from preprocessing.clip import SPLITS, Clip, Factors, Item, Label, Source
from preprocessing.dataset.format import Manifest
from preprocessing.dataset.manifest import write_manifest
from preprocessing.recipe import DataRecipe, ShardsConfig
from preprocessing.sharding.manifest import make_manifest
from preprocessing.sharding.output_lock import acquire_output
from preprocessing.sharding.plan import Plan, make_plan
from preprocessing.sharding.rejects import write_rejects
from preprocessing.sharding.write_shard import write_shard
from tests.property_settings import names

RECIPE = DataRecipe(shards=ShardsConfig(target_mb=2e-6))
"""Shards of two inputs each; an input counts as one byte."""


@dataclasses.dataclass(frozen=True)
class MemorySource:
    """A source that yields the given clips."""

    vocabulary: dict[str, list[str]]
    factors: Factors
    listed: list[Item]
    clips_of: dict[str, list[Clip]]
    untrusted: bool = False

    def items(self) -> list[Item]:
        return self.listed

    def clips(self, item: Item) -> Iterator[Clip]:
        return iter(self.clips_of[item.key])

    def fingerprint(self) -> str:
        return "0" * 64

    def plan(self) -> Plan:
        return make_plan(RECIPE, self)

    def planned_clips(self, split: str) -> list[Clip]:
        """Return the clips of a split in the order of the plan."""
        shards = [shard for shard in self.plan().shards if shard.split == split]
        return [clip for shard in shards for item in shard.items for clip in self.clips_of[item.key]]


def write_dataset(folder: Path, source: Source, version: int | None = None) -> Manifest:
    """Write the dataset of a source, without its preview, and return its manifest."""
    plan = make_plan(RECIPE, source)
    url, plan = str(folder), plan.of_version(version or plan.version)
    acquire_output(url, plan)
    summaries = [write_shard(url, plan.identity, shard, source) for shard in plan.shards]
    rejected = write_rejects(url, [record for one in summaries for record in one.index["rejects"]])
    manifest = make_manifest(url, plan, source, summaries, rejected)
    write_manifest(url, manifest)
    return manifest


def numbers() -> st.SearchStrategy[float]:
    """Return finite numbers whose sums are finite too."""
    return st.floats(-1e299, 1e299) | st.integers(-9, 9).map(float)


@st.composite
def sources(draw: st.DrawFn) -> MemorySource:
    """Draw a source with any labels, texts, shapes and times; at least one clip in each split."""
    labels = draw(st.lists(names(), min_size=1, max_size=5, unique=True))
    vocabulary: dict[str, list[str]] = {}
    factors: Factors = {}
    for label in labels:
        kind = draw(st.sampled_from(["names", "clip", "frame"]))
        if kind == "names":
            vocabulary[label] = draw(st.lists(names(), min_size=1, max_size=4, unique=True))
        else:
            factors[label] = "clip" if kind == "clip" else "frame"
    size = draw(st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 4)))
    people = draw(st.lists(names(), min_size=2, max_size=4, unique=True))
    items, clips = [], {}
    for number in range(draw(st.integers(2, 7))):
        group = people[number if number < 2 else draw(st.integers(0, len(people) - 1))]
        split = SPLITS[people.index(group) % 2]
        item = Item(key=f"input-{number}", split=split, estimated_bytes=1, group=group, path=draw(names()))
        items.append(item)
        clips[item.key] = [
            _clip(draw, f"{item.key}-{count}", group or item.key, size, vocabulary, factors)
            for count in range(draw(st.integers(1 if number < 2 else 0, 3)))
        ]
    return MemorySource(vocabulary, factors, items, clips)


def _clip(
    draw: st.DrawFn,
    key: str,
    identity: str,
    size: tuple[int, int, int],
    vocabulary: dict[str, list[str]],
    factors: Factors,
) -> Clip:
    length = draw(st.integers(1, 4))
    frames = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, (length, *size), dtype=np.uint8)
    if draw(st.booleans()):
        frames = np.asfortranarray(frames)  # as after a transposition; stored in C order all the same
    labels: dict[str, Label] = {name: draw(st.integers(0, len(known) - 1)) for name, known in vocabulary.items()}
    for name, kind in factors.items():
        labels[name] = (
            draw(numbers()) if kind == "clip" else draw(st.lists(numbers(), min_size=length, max_size=length))
        )
    return Clip(
        key=key,
        frames=frames,
        labels=labels,
        identity=identity,
        source=draw(names()),
        start_s=draw(st.floats(-1e9, 1e9)),
        fps=draw(st.floats(0.001, 1000)),
    )

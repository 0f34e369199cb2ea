"""Properties of the shard plan, for any list of inputs with any labels, paths and sizes."""

import dataclasses
import json
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import UserError
from preprocessing.clip import SPLITS, Item
from preprocessing.dataset.format import encode_json
from preprocessing.recipe import DataRecipe, ShardsConfig
from preprocessing.sharding.plan import Plan, ShardPlan, estimate, input_line, make_plan
from preprocessing.sources.names import make_key
from tests.preprocessing.sharding.listed_source import ListedSource
from tests.property_settings import examples, names

TARGET_BYTES = 1000
RECIPE = DataRecipe(shards=ShardsConfig(target_mb=TARGET_BYTES / 1e6))


def plan_of(items: list[Item], recipe: DataRecipe = RECIPE) -> Plan:
    return make_plan(recipe, ListedSource(items))


def sizes() -> st.SearchStrategy[int]:
    return st.integers(1, 2 * TARGET_BYTES) | st.sampled_from([1, TARGET_BYTES // 3, TARGET_BYTES, 50 * TARGET_BYTES])


@st.composite
def listings(draw: st.DrawFn, *, valid: bool = True, max_size: int = 30) -> list[Item]:
    """Draw the inputs of a source; without `valid`, groups may be in two splits, keys twice, and a split empty."""
    groups = draw(st.lists(names(), min_size=2, max_size=8, unique=True))
    splits = ["train", "test", *(draw(st.sampled_from(SPLITS)) for _ in groups[2:])]
    keys = draw(st.lists(names(), min_size=2, max_size=max_size, unique=valid))
    items = []
    for number, key in enumerate(keys):
        # The first two groups have an input, so that no split is empty.
        group = number if number < 2 else draw(st.integers(0, len(groups) - 1))
        items.append(
            Item(
                key=make_key(key) if valid else key,
                split=splits[group] if valid else draw(st.sampled_from(SPLITS)),
                estimated_bytes=draw(sizes()),
                clips=draw(st.none() | st.integers(0, 9)),
                group=groups[group],
                path=key,
                version=draw(names()),
                detail=draw(names()),
            )
        )
    return items


def shards_of(plan: Plan, split: str) -> list[ShardPlan]:
    return [shard for shard in plan.shards if shard.split == split]


@examples(30)
@given(listings())
def test_every_input_is_in_exactly_one_shard_which_is_of_its_split(items: list[Item]) -> None:
    plan = plan_of(items)
    planned = [item for shard in plan.shards for item in shard.items]
    assert sorted(item.key for item in planned) == sorted(item.key for item in items)
    assert {item.key: item for item in planned} == {item.key: item for item in items}
    for split in SPLITS:
        shards = shards_of(plan, split)
        assert all(item.split == split for shard in shards for item in shard.items)
        assert all(shard.items for shard in shards)
        assert [shard.path for shard in shards] == [f"{split}/shard-{n:06d}.tar" for n in range(len(shards))]
    assert sum(len(shards_of(plan, split)) for split in SPLITS) == len(plan.shards)


@examples(30)
@given(listings(), st.data())
def test_the_plan_depends_on_the_inputs_not_on_how_they_are_listed(items: list[Item], data: st.DataObject) -> None:
    moved = data.draw(st.permutations(items))
    copied = [dataclasses.replace(item, version=data.draw(names())) for item in moved]
    plan = plan_of(items)
    assert plan_of(moved) == plan
    assert plan_of(copied).identity == plan.identity
    assert [shard.path for shard in plan_of(copied).shards] == [shard.path for shard in plan.shards]


@examples(30)
@given(listings())
def test_no_shard_differs_from_the_mean_size_by_more_than_the_largest_input(items: list[Item]) -> None:
    plan = plan_of(items)
    for split in SPLITS:
        inputs = [item.estimated_bytes for item in items if item.split == split]
        shards = [sum(item.estimated_bytes for item in shard.items) for shard in shards_of(plan, split)]
        count = max(1, round(sum(inputs) / TARGET_BYTES))
        mean, largest = Fraction(sum(inputs), count), max(inputs)
        assert max(shards) < mean + largest
        assert len(shards) <= count
        if largest <= mean:  # else an input may fill several shards, of which only the first exists
            assert len(shards) == count
            assert min(shards) > mean - largest


@examples(30)
@given(st.integers(1, 40), st.integers(1, 3 * TARGET_BYTES))
def test_inputs_of_one_size_are_spread_evenly(count: int, size: int) -> None:
    train = [Item(key=f"v{number}", split="train", estimated_bytes=size) for number in range(count)]
    plan = plan_of([*train, Item(key="other", split="test", estimated_bytes=1)])
    lengths = [len(shard.items) for shard in shards_of(plan, "train")]
    assert max(lengths) - min(lengths) <= 1
    assert len(lengths) == min(count, max(1, round(count * size / TARGET_BYTES)))


@pytest.mark.slow
@examples(50)
@given(listings(valid=False, max_size=8))
def test_a_plan_is_refused_exactly_if_a_key_repeats_a_group_is_in_two_splits_or_a_split_is_empty(
    items: list[Item],
) -> None:
    homes: dict[str, set[str]] = {}
    for item in items:
        homes.setdefault(item.group or item.key, set()).add(item.split)
    repeated = max(Counter(item.key for item in items).values()) > 1
    divided = any(len(splits) > 1 for splits in homes.values())
    if repeated or divided or len({item.split for item in items}) < 2:
        with pytest.raises(UserError, match=r"(?s)two inputs have the key|is in two splits|no input goes to the"):
            plan_of(items)
    else:
        counts = {split: sum(splits == {split} for splits in homes.values()) for split in SPLITS}
        assert plan_of(items).groups() == counts


@examples(30)
@given(listings())
def test_the_estimate_adds_up_the_listing(items: list[Item]) -> None:
    found = estimate(plan_of(items))
    for split in SPLITS:
        own = [item for item in items if item.split == split]
        clips = [item.clips for item in own]
        assert found[split].inputs == len(own)
        assert found[split].bytes == sum(item.estimated_bytes for item in own)
        assert found[split].clips == (None if None in clips else sum(filter(None, clips)))


@pytest.mark.slow
@examples(30)
@given(listings())
def test_a_stored_plan_reads_back_and_covers_every_field_of_every_input_but_its_version(items: list[Item]) -> None:
    plan = plan_of(items)
    stored = encode_json(plan.content())
    assert json.loads(stored) == plan.content()
    assert encode_json(json.loads(stored)) == stored
    for item in items:
        fields = [item.key, item.path, item.split, item.group, item.estimated_bytes, item.detail, item.version]
        line = encode_json(input_line(item, version=True))
        assert json.loads(line) == fields
        assert line.count(b"\n") == 1
        assert line.isascii()
    first, *others = items
    for field in ("path", "detail"):
        changed = dataclasses.replace(first, **{field: getattr(first, field) + "x"})
        assert plan_of([changed, *others]).identity != plan.identity
    assert plan_of([dataclasses.replace(first, version=first.version + "x"), *others]).identity == plan.identity

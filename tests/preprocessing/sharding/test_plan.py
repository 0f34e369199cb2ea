"""Which input goes into which shard depends on the inputs and the settings alone."""

import dataclasses
from typing import Any

import pytest

from cluster.errors import UserError
from preprocessing.clip import Item
from preprocessing.recipe import DataRecipe, ShardsConfig
from preprocessing.sharding.plan import make_plan
from preprocessing.sources.config import SourceConfig
from tests.preprocessing.sharding.listed_source import ListedSource


def items(count: int) -> list[Item]:
    return [
        Item(key=f"v{n:04d}", split="test" if n % 5 == 0 else "train", estimated_bytes=300_000) for n in range(count)
    ]


RECIPE = DataRecipe(shards=ShardsConfig(target_mb=3))


def test_every_item_is_in_one_shard_of_its_split() -> None:
    plan = make_plan(RECIPE, ListedSource(items(203)))
    assigned = [(item.key, shard.split) for shard in plan.shards for item in shard.items]
    assert sorted(assigned) == sorted((item.key, item.split) for item in items(203))
    assert all(shard.path.startswith(f"{shard.split}/shard-") for shard in plan.shards)
    assert len({shard.path for shard in plan.shards}) == len(plan.shards)


def test_shards_have_about_the_target_size_and_the_last_is_no_smaller() -> None:
    plan = make_plan(RECIPE, ListedSource(items(203)))
    for split, count, shards in (("train", 162, 16), ("test", 41, 4)):
        sizes = [len(shard.items) for shard in plan.shards if shard.split == split]
        assert len(sizes) == shards
        assert sum(sizes) == count
        assert set(sizes) <= {10, 11}


def test_an_input_larger_than_a_shard_has_one_of_its_own() -> None:
    big = Item(key="big", split="train", estimated_bytes=50_000_000)
    plan = make_plan(RECIPE, ListedSource([big, *items(60)]))
    (home,) = (shard for shard in plan.shards if big in shard.items)
    assert sum(item.estimated_bytes for item in home.items if item is not big) < 6_000_000
    names = [shard.path for shard in plan.shards if shard.split == "train"]
    assert names == [f"train/shard-{number:06d}.tar" for number in range(len(names))]


def test_inputs_of_unknown_size_share_a_shard() -> None:
    plan = make_plan(
        RECIPE, ListedSource([Item(key=f"v{n}", split=("train", "test")[n % 2], estimated_bytes=0) for n in range(9)])
    )
    assert [len(shard.items) for shard in plan.shards] == [5, 4]


def test_neighbours_in_the_source_do_not_share_shards() -> None:
    first = make_plan(RECIPE, ListedSource(items(203))).shards[0]
    numbers = sorted(int(item.key[1:]) for item in first.items)
    assert numbers[-1] - numbers[0] > 100


def test_the_order_in_which_a_source_lists_its_items_does_not_matter() -> None:
    assert (
        make_plan(RECIPE, ListedSource(items(50))).identity == make_plan(RECIPE, ListedSource(items(50)[::-1])).identity
    )


def test_only_settings_that_change_bytes_are_in_the_plan() -> None:
    base = make_plan(RECIPE, ListedSource(items(50)))
    other_path = RECIPE.model_copy(
        update={"source": SourceConfig(path="elsewhere"), "shards": ShardsConfig(target_mb=3, concurrency=7)}
    )
    assert make_plan(other_path, ListedSource(items(50))) == base
    for changed in ({"seed": 1}, {"shards": ShardsConfig(target_mb=4)}):
        assert make_plan(RECIPE.model_copy(update=changed), ListedSource(items(50))).identity != base.identity


def test_a_copy_of_the_inputs_gives_the_same_plan() -> None:
    copied = [dataclasses.replace(item, version="another time") for item in items(50)]
    assert make_plan(RECIPE, ListedSource(copied)).identity == make_plan(RECIPE, ListedSource(items(50))).identity


@pytest.mark.parametrize("change", [{"detail": "action: 1"}, {"estimated_bytes": 1}, {"path": "b.mp4"}, {"group": "g"}])
def test_everything_that_decides_the_clips_of_an_input_is_part_of_the_plan(change: dict[str, Any]) -> None:
    first, *others = items(50)
    changed = [dataclasses.replace(first, **change), *others]
    assert (
        make_plan(RECIPE, ListedSource(changed)).identity != make_plan(RECIPE, ListedSource([first, *others])).identity
    )


def test_a_group_in_two_splits_is_refused() -> None:
    mixed = [dataclasses.replace(item, group="anna" if item.key in ("v0004", "v0005") else "") for item in items(20)]
    with pytest.raises(UserError, match=r"group anna is in two splits, test \(input v0005\) and train"):
        make_plan(RECIPE, ListedSource(mixed))


def test_two_inputs_with_one_key_are_refused() -> None:
    with pytest.raises(UserError, match="two inputs have the key v0003"):
        make_plan(RECIPE, ListedSource([*items(20), items(20)[3]]))


def test_a_split_without_input_is_refused() -> None:
    with pytest.raises(UserError, match="no input goes to the test split"):
        make_plan(RECIPE, ListedSource([item for item in items(20) if item.split == "train"]))

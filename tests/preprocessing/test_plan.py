"""Which clip goes where depends on inputs and settings alone."""

from collections.abc import Iterator

import pytest

from cluster.errors import UserError
from preprocessing.clip import Clip, Factors, Item
from preprocessing.config import DataRecipe, ShardsConfig, SourceConfig
from preprocessing.plan import differences, make_plan


class Listed:
    """A source of which only the list is asked."""

    def __init__(self, items: list[Item]) -> None:
        self.vocabulary = {"action": ["one"]}
        self.factors: Factors = {}
        self.untrusted = False
        self._items = items

    def items(self) -> list[Item]:
        return self._items

    def clips(self, item: Item) -> Iterator[Clip]:
        raise NotImplementedError

    def fingerprint(self) -> str:
        return "0" * 64


def items(count: int) -> list[Item]:
    return [
        Item(key=f"v{n:04d}", split="test" if n % 5 == 0 else "train", estimated_bytes=300_000) for n in range(count)
    ]


RECIPE = DataRecipe(shards=ShardsConfig(target_mb=3))


def test_every_item_is_in_one_shard_of_its_split() -> None:
    plan = make_plan(RECIPE, Listed(items(203)))
    placed = [(item.key, shard.split) for shard in plan.shards for item in shard.items]
    assert sorted(placed) == sorted((item.key, item.split) for item in items(203))
    assert all(shard.path.startswith(f"{shard.split}/shard-") for shard in plan.shards)
    assert len({shard.path for shard in plan.shards}) == len(plan.shards)


def test_a_shard_is_closed_when_it_reaches_its_size() -> None:
    plan = make_plan(RECIPE, Listed(items(203)))
    for split, count in (("train", 162), ("test", 41)):
        sizes = [len(shard.items) for shard in plan.shards if shard.split == split]
        assert sizes == [10] * (count // 10) + [count % 10]


def test_neighbours_in_the_source_do_not_share_shards() -> None:
    first = make_plan(RECIPE, Listed(items(203))).shards[0]
    numbers = sorted(int(item.key[1:]) for item in first.items)
    assert numbers[-1] - numbers[0] > 100


def test_the_order_in_which_a_source_lists_its_items_does_not_matter() -> None:
    assert make_plan(RECIPE, Listed(items(50))).sha256() == make_plan(RECIPE, Listed(items(50)[::-1])).sha256()


def test_only_settings_that_change_bytes_are_in_the_plan() -> None:
    base = make_plan(RECIPE, Listed(items(50)))
    other_path = RECIPE.model_copy(
        update={"source": SourceConfig(path="elsewhere"), "shards": ShardsConfig(target_mb=3, concurrency=7)}
    )
    assert make_plan(other_path, Listed(items(50))) == base
    for changed in ({"seed": 1}, {"shards": ShardsConfig(target_mb=4)}):
        assert make_plan(RECIPE.model_copy(update=changed), Listed(items(50))).sha256() != base.sha256()


def test_an_added_item_is_a_difference() -> None:
    before, after = (make_plan(RECIPE, Listed(items(count))).content() for count in (50, 51))
    assert differences(before, before) == []
    assert differences(before, after) == ["the source lists other items"]


def test_a_split_without_input_is_refused() -> None:
    with pytest.raises(UserError, match="no input goes to the test split"):
        make_plan(RECIPE, Listed([item for item in items(20) if item.split == "train"]))

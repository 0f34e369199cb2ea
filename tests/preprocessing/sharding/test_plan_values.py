"""The plan of known inputs: its stored content, the sizes of its shards, its groups and its estimate."""

import dataclasses

import pytest

from preprocessing.clip import Item
from preprocessing.recipe import DataRecipe, ShardsConfig
from preprocessing.sharding.plan import SplitEstimate, estimate, make_plan
from preprocessing.sources.config import FiguresConfig, SourceConfig
from tests.preprocessing.sharding.listed_source import ListedSource
from tests.preprocessing.sharding.test_plan import items

RECIPE = DataRecipe(shards=ShardsConfig(target_mb=3))


def listed(*sizes: int, split: str = "train") -> list[Item]:
    """Return inputs of the given sizes, and one of the other split."""
    other = "test" if split == "train" else "train"
    inputs = [Item(key=f"i{number}", split=split, estimated_bytes=size) for number, size in enumerate(sizes)]
    return [*inputs, Item(key="other", split=other, estimated_bytes=1)]


def test_a_plan_is_the_same_on_every_machine_and_version() -> None:
    # Known values: if they change, an interrupted dataset of an earlier version is refused.
    plan = make_plan(RECIPE, ListedSource([dataclasses.replace(item, group="g" + item.split) for item in items(30)]))
    source = {"name": "figures", "figures": {"identities": 400, "clip_frames": 8, "test_fraction": 0.2}}
    assert plan.content() == {
        "schema_version": 2,
        "configuration": {"seed": 0, "source": source, "shards": {"target_mb": 3.0}},
        "source_sha256": "0" * 64,
        "shards": 3,
        "inputs": 30,
        "inputs_sha256": "9727de98189afe00c86779345e8bf3a9a6e8b1505d8fa6f1ea02cb39325b2e5e",
    }
    assert plan.identity == "a4d0388591b2e46b55eaa5361f93c5d78a4dc04b22055971cec724737527b761"
    assert [[item.key for item in shard.items][:3] for shard in plan.shards] == [
        ["v0028", "v0004", "v0029"],
        ["v0007", "v0001", "v0023"],
        ["v0025", "v0000", "v0020"],
    ]
    assert [(shard.path, shard.index_path, shard.split, len(shard.items)) for shard in plan.shards] == [
        ("train/shard-000000.tar", "train/shard-000000.json", "train", 12),
        ("train/shard-000001.tar", "train/shard-000001.json", "train", 12),
        ("test/shard-000000.tar", "test/shard-000000.json", "test", 6),
    ]


def test_the_limits_of_decoding_are_in_the_plan_of_files_that_may_be_rejected() -> None:
    class Files(ListedSource):
        def __init__(self, items: list[Item]) -> None:
            super().__init__(items)
            self.untrusted = True

    shards = make_plan(RECIPE, Files(items(30))).configuration["shards"]
    assert shards.keys() == {"target_mb", "decode_seconds", "decode_mb"}


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((1_000_000,) * 6, [3, 3]),
        ((1_000_000,) * 4, [4]),
        ((1_000_000,) * 5, [3, 2]),
        ((3_000_000, 3_000_000), [1, 1]),
        ((1,), [1]),
        ((0, 0), [2]),
    ],
)
def test_groups_are_of_similar_size_and_as_many_as_the_target_asks_for(sizes: list[int], expected: list[int]) -> None:
    plan = make_plan(RECIPE, ListedSource(listed(*sizes)))
    assert [len(shard.items) for shard in plan.shards if shard.split == "train"] == expected


def test_groups_are_counted_by_split_and_an_input_without_one_is_its_own() -> None:
    grouped = [dataclasses.replace(item, group=f"g{n // 10}{item.split}" if n < 20 else "") for n, item in
               enumerate(items(30))]  # fmt: skip
    assert make_plan(RECIPE, ListedSource(grouped)).groups() == {"train": 2 + 8, "test": 2 + 2}


def test_the_size_of_each_split_is_estimated_from_the_listing() -> None:
    counted = [dataclasses.replace(item, clips=4) for item in items(30)]
    found = estimate(make_plan(RECIPE, ListedSource(counted)))
    assert found == {
        "train": SplitEstimate(shards=2, inputs=24, clips=96, bytes=24 * 300_000),
        "test": SplitEstimate(shards=1, inputs=6, clips=24, bytes=6 * 300_000),
    }
    unknown = [dataclasses.replace(item, clips=None if item.key == "v0001" else 4) for item in items(30)]
    assert [one.clips for one in estimate(make_plan(RECIPE, ListedSource(unknown))).values()] == [None, 24]


def test_a_dataset_without_repetition_is_described_as_before_there_was_any() -> None:
    once, twice = (
        make_plan(DataRecipe(source=SourceConfig(repeat=repeat)), ListedSource(items(30))).configuration["source"]
        for repeat in (1, 2)
    )
    assert once == {"name": "figures", "figures": {"identities": 400, "clip_frames": 8, "test_fraction": 0.2}}
    assert twice == {**once, "repeat": 2}
    assert SourceConfig.model_validate(once) == SourceConfig(repeat=1)


def test_figures_of_64_pixels_are_described_as_before_there_were_others() -> None:
    small, large = (
        make_plan(
            DataRecipe(source=SourceConfig(figures=FiguresConfig(size=size))), ListedSource(items(30))
        ).configuration["source"]
        for size in (64, 128)
    )
    assert small == {"name": "figures", "figures": {"identities": 400, "clip_frames": 8, "test_fraction": 0.2}}
    assert large == {"name": "figures", "figures": {**small["figures"], "size": 128}}
    assert SourceConfig.model_validate(small).figures.size == 64

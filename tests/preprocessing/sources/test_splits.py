"""Identities are divided between the splits as wanted, and none is divided."""

import pytest

from preprocessing.sources.splits import Splitter


def splits(names: list[str], fraction: float, seed: int = 0) -> dict[str, str]:
    splitter = Splitter(seed=seed, test_fraction=fraction)
    for name in [*names, *names]:
        splitter.add(name, None)
    return {name: splitter.split(name) for name in names}


@pytest.mark.parametrize(("count", "fraction", "wanted"), [(2, 0.2, 1), (2, 0.9, 1), (11, 0.2, 2), (100, 0.25, 25)])
def test_of_few_the_share_is_exact_and_each_split_gets_one(count: int, fraction: float, wanted: int) -> None:
    for seed in range(20):
        found = splits([f"p{number}" for number in range(count)], fraction, seed)
        assert list(found.values()).count("test") == wanted


@pytest.mark.parametrize("fraction", [0.0001, 0.2, 0.9])
def test_of_many_each_stays_where_it_is_and_the_share_is_kept_on_average(fraction: float) -> None:
    names = [f"p{number}" for number in range(4000)]
    found = splits(names, fraction)
    tests = list(found.values()).count("test")
    assert tests >= 1
    assert abs(tests - fraction * 4000) <= 5 * (4000 * fraction * (1 - fraction)) ** 0.5 + 1
    again = splits(names[:2000][::-1], fraction)
    if fraction > 0.01:
        assert all(found[name] == split for name, split in again.items())


def test_one_alone_is_for_training() -> None:
    assert splits(["only"], 0.5) == {"only": "train"}


def test_what_labels_tell_wins_and_does_not_count() -> None:
    splitter = Splitter(seed=0, test_fraction=0.5)
    for name in ("a", "b", "c", "d"):
        splitter.add(name, "train")
    for name in ("e", "f"):
        splitter.add(name, None)
    assert [splitter.split(name) for name in "abcd"] == ["train"] * 4
    assert sorted(splitter.split(name) for name in "ef") == ["test", "train"]


def test_the_seed_decides() -> None:
    names = [f"p{number}" for number in range(50)]
    assert len({tuple(splits(names, 0.3, seed).values()) for seed in range(5)}) == 5

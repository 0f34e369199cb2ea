"""Identities are assigned to splits in the requested proportion, and none is in two splits."""

import pytest

from preprocessing.sources.splits import Splitter


def splits(names: list[str], fraction: float, seed: int = 0) -> dict[str, str]:
    splitter = Splitter(seed=seed, test_fraction=fraction)
    for name in [*names, *names]:
        splitter.add(name, None)
    return {name: splitter.split(name) for name in names}


@pytest.mark.parametrize(("count", "fraction", "expected"), [(2, 0.2, 1), (2, 0.9, 1), (11, 0.2, 2), (100, 0.25, 25)])
def test_with_few_identities_the_share_is_exact_and_no_split_is_empty(
    count: int, fraction: float, expected: int
) -> None:
    for seed in range(20):
        found = splits([f"p{number}" for number in range(count)], fraction, seed)
        assert list(found.values()).count("test") == expected


@pytest.mark.parametrize("fraction", [0.0001, 0.2, 0.9])
def test_with_many_identities_each_keeps_its_split_and_the_share_holds_on_average(fraction: float) -> None:
    names = [f"p{number}" for number in range(4000)]
    found = splits(names, fraction)
    tests = list(found.values()).count("test")
    assert tests >= 1
    assert abs(tests - fraction * 4000) <= 5 * (4000 * fraction * (1 - fraction)) ** 0.5 + 1
    again = splits(names[:2000][::-1], fraction)
    if fraction > 0.01:
        assert all(found[name] == split for name, split in again.items())


def test_a_single_identity_is_in_the_train_split() -> None:
    assert splits(["only"], 0.5) == {"only": "train"}


def test_splits_set_by_labels_win_and_do_not_count_towards_the_share() -> None:
    splitter = Splitter(seed=0, test_fraction=0.5)
    for name in ("a", "b", "c", "d"):
        splitter.add(name, "train")
    for name in ("e", "f"):
        splitter.add(name, None)
    assert [splitter.split(name) for name in "abcd"] == ["train"] * 4
    assert sorted(splitter.split(name) for name in "ef") == ["test", "train"]


def test_the_seed_determines_the_splits() -> None:
    names = [f"p{number}" for number in range(50)]
    assert len({tuple(splits(names, 0.3, seed).values()) for seed in range(5)}) == 5

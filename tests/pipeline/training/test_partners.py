"""Partners of a list or of a group: those of the slow order, never held out, and the clip itself where it has none."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.distributed import DistributedContext
from pipeline.training.order import GlobalOrder
from pipeline.training.partners import ClipTable, make_partners
from preprocessing.appearance.pairs import MinedPairs
from tests.pipeline.training.test_order_properties import Case, order_settings, rows, slow_batch
from tests.property_settings import examples


def mined(count: int, links: list[tuple[int, int]]) -> MinedPairs:
    """Return pairs in the given directions alone."""
    pairs = np.array(sorted(set(links)), dtype=np.int64).reshape(-1, 2)
    return MinedPairs.of(count, pairs, np.zeros(len(pairs)), mutual_share=1.0, random_distances=np.zeros(0))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw clips of groups of any size, listed partners among all of them or none, and some clips in no pair."""
    count = draw(st.integers(2, 16))
    clips = st.integers(0, count - 1)
    groups = [f"group {number}" for number in draw(st.lists(st.integers(0, 5), min_size=count, max_size=count))]
    groups[0], groups[1] = "first", "second"
    links = draw(st.none() | st.lists(st.tuples(clips, clips), max_size=3 * count))
    window = draw(st.integers(1, 4))
    shards = draw(st.none() | st.lists(st.integers(0, 3), min_size=count, max_size=count))
    table = ClipTable(
        keys=[f"clip {number}" for number in draw(st.permutations(range(count)))],
        groups=groups,
        frames=np.array(draw(st.lists(st.integers(window, window + 4), min_size=count, max_size=count))),
        shards=None if shards is None else np.array(shards),
        pairs=None if links is None else mined(count, [(one, two) for one, two in links if one != two]),
        lone="keep",
    )
    return Case(table, draw(order_settings(window, pairing=True)))


@examples(40)
@given(cases(), st.integers(0, 12))
def test_the_batch_of_any_step_is_that_of_the_slow_order(case: Case, step: int) -> None:
    assert rows(case.order().at(step)) == slow_batch(case, step)


@examples(25)
@given(cases(), st.integers(0, 40))
def test_partners_are_listed_or_of_the_group_and_never_held_out(case: Case, step: int) -> None:
    order, table = case.order(), case.table
    trained = set(order.train.tolist())
    if table.pairs is None:
        known = {(one, two) for one in trained for two in trained if table.groups[one] == table.groups[two]}
    else:
        known = set(zip(table.pairs.firsts.tolist(), table.pairs.partners.tolist(), strict=True))
    for clip, _, partner, start in rows(order.at(step)):
        assert partner is not None
        assert start is not None
        assert {clip, partner} <= trained
        others = {two for one, two in known if one == clip and two in trained and two != clip}
        assert partner in (others or {clip})
        assert 0 <= start <= table.frames[partner] - case.settings.window


@examples(20)
@given(cases(), st.integers(0, 40), st.integers(1, 8), st.lists(st.integers(0, 40), max_size=4))
def test_pairs_are_the_same_at_any_world_size_and_after_any_restart(
    case: Case, step: int, size: int, visited: list[int]
) -> None:
    used = case.order()
    for earlier in visited:
        used.at(earlier)
    batch = case.order().at(step)
    parts = [
        used.at(step).part(DistributedContext(rank=rank, size=size).rows(len(batch.clips))) for rank in range(size)
    ]
    assert [sample for part in parts for sample in rows(part)] == rows(batch)


@pytest.mark.slow
@examples(20)
@given(cases())
def test_labels_of_the_groups_do_not_change_which_partner_is_drawn(case: Case) -> None:
    # Groups decide what is held out; the list alone decides who is a partner.
    if case.table.pairs is None:
        return
    clips = np.arange(len(case.table.keys))
    draws = np.random.default_rng(0).integers(0, 2**64, len(clips), dtype=np.uint64)
    renamed = ClipTable(case.table.keys, case.table.keys, case.table.frames, None, case.table.pairs, "keep")
    chosen = [make_partners(table, clips, 1).choose(clips, draws).tolist() for table in (case.table, renamed)]
    assert chosen[0] == chosen[1]


def table(count: int, links: list[tuple[int, int]], **changes: Any) -> ClipTable:
    names = [f"clip {number}" for number in range(count)]
    given: dict[str, Any] = {"groups": names, "pairs": mined(count, links), "lone": "keep", **changes}
    return ClipTable(names, given["groups"], np.full(count, 9), None, given["pairs"], given["lone"])


def order(clips: ClipTable, **changes: Any) -> GlobalOrder:
    settings: dict[str, Any] = {"seed": 7, "stage": 1, "window": 4, "batch": 8, "validation_fraction": 0.1, **changes}
    return GlobalOrder(clips, pairing=True, **settings)


def test_every_listed_partner_is_drawn_equally_often() -> None:
    clips = table(10, [(0, 3), (0, 5), (0, 8), (3, 0)])
    every = np.arange(10)
    partners = make_partners(clips, every, 1)
    draws = np.random.default_rng(0).integers(0, 2**64, (3000, 10), dtype=np.uint64)
    drawn = np.stack([partners.choose(every, row) for row in draws])
    counts = np.bincount(drawn[:, 0], minlength=10)
    assert set(np.flatnonzero(counts)) == {3, 5, 8}
    assert counts[[3, 5, 8]].min() > 900
    assert (drawn[:, 3] == 0).all()
    assert (drawn[:, [1, 2, 4, 5, 6, 7, 8, 9]] == [1, 2, 4, 5, 6, 7, 8, 9]).all()


@pytest.mark.parametrize("kind", ["listed", "video"])
def test_a_clip_alone_is_paired_with_other_windows_of_itself(kind: str) -> None:
    changes: dict[str, Any] = {} if kind == "listed" else {"pairs": None}
    one = order(table(20, [], **changes))
    seen: dict[int, set[tuple[int, int]]] = {}
    for step in range(200):
        for clip, start, partner, partner_start in rows(one.at(step)):
            assert partner == clip
            assert partner_start is not None
            seen.setdefault(clip, set()).add((start, partner_start))
    assert set(seen) == set(one.train.tolist())
    assert all(any(start != other for start, other in windows) for windows in seen.values())


def test_windows_of_a_video_are_partners_and_held_out_together() -> None:
    groups = [f"video {number // 3}" for number in range(30)]
    one = order(table(30, [], groups=groups, pairs=None), validation_fraction=0.2)
    assert len(one.validation) == 6
    assert {groups[clip] for clip in one.validation}.isdisjoint(groups[clip] for clip in one.train)
    drawn = {(clip, partner) for step in range(200) for clip, _, partner, _ in rows(one.at(step))}
    train = one.train.tolist()
    assert drawn == {(a, b) for a in train for b in train if a != b and groups[a] == groups[b]}


def test_an_identity_with_a_single_clip_is_refused_and_the_other_pairings_named() -> None:
    with pytest.raises(ValueError, match="set pairing to appearance, video or none"):
        order(table(20, [], pairs=None, lone="refuse"))


def test_a_partner_that_is_held_out_is_replaced_by_the_others() -> None:
    # One long list: clip 0 may have any partner, and those held out are left out.
    clips = table(20, [(0, number) for number in range(1, 20)])
    one = order(clips, validation_fraction=0.4, seed=3)
    assert 0 in one.train
    partners = {partner for step in range(400) for clip, _, partner, _ in rows(one.at(step)) if clip == 0}
    assert partners == set(one.train.tolist()) - {0}


def test_listed_partners_are_the_same_on_every_machine_and_version() -> None:
    # Known values: if they change, earlier runs cannot be resumed.
    links = [(number, (number + step) % 12) for number in range(12) for step in (1, 2, 5)]
    batch = order(table(12, links)).at(5)
    assert [column.tolist() for column in batch if column is not None] == [
        [10, 9, 6, 4, 5, 0, 9, 4],
        [0, 2, 5, 3, 5, 5, 2, 2],
        [0, 2, 7, 6, 7, 5, 2, 5],
        [2, 2, 0, 0, 0, 1, 5, 2],
    ]

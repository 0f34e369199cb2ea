"""The order by lanes: exact epochs, the same batch at any number of ranks, and each rank reads shards of its own."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training import lanes as module
from pipeline.training.distributed import DistributedContext
from pipeline.training.order import GlobalOrder
from pipeline.training.partners import ClipTable
from tests.pipeline.training import slow_order
from tests.pipeline.training.test_order_properties import Case, cases, rows, same
from tests.property_settings import examples

PER_SHARD = 12


def laned(case: Case) -> GlobalOrder:
    return GlobalOrder(case.table, **case.settings._asdict(), lanes=True)


def table_of(shards: int, *, late: bool = False) -> ClipTable:
    """Return a table of two identities per shard, of as many clips as others have, on average."""
    sizes = [PER_SHARD - 4 + 4 * (number % 3) for number in range(shards)]
    shard = np.repeat(np.arange(shards), sizes)
    keys = [f"clip{number}" for number in range(len(shard))]
    groups = [f"one{number}-{row % 2}" for row, number in enumerate(shard.tolist())]
    is_late = np.arange(len(shard)) % 5 == 0
    return ClipTable(keys, groups, np.full(len(shard), 4), shard, late=is_late if late else None)


def order_of(table: ClipTable, batch: int, *, lanes: bool = True, **changes: int) -> GlobalOrder:
    settings = {"seed": 3, "stage": 1, "window": 4, **changes}
    return GlobalOrder(table, batch=batch, validation_fraction=0.1, lanes=lanes, **settings)  # type: ignore[arg-type]


def slow_epoch(case: Case, number: int, row: int, clips: list[int], rows_per_lane: int, per_lane: int) -> list[int]:
    """Return an epoch, whose first sample is in `row` of a batch, by walking it: the definition of the order."""
    table, settings = case.table, case.settings

    def key(clip: int) -> int:
        return slow_order._key_hash(table, clip)

    members: dict[int, list[int]] = {}
    for clip in sorted(clips, key=key):
        members.setdefault(0 if table.shards is None else int(table.shards[clip]), []).append(clip)
    shards = sorted(members, key=lambda one: slow_order._draw(settings, number, "shards", key(members[one][0])))
    laid = [clip for shard in shards for clip in members[shard]]
    even = [rows for rows in range(rows_per_lane // 2, rows_per_lane + 1) if settings.batch % rows == 0]
    lanes = min(-(-settings.batch // max(even, default=rows_per_lane)), max(1, len(shards) // per_lane))
    lane_of = [(row + position) % settings.batch * lanes // settings.batch for position in range(len(clips))]
    in_block = max(1, round(max(2, -(-settings.block_shards // lanes)) * len(clips) / len(shards)))
    pieces = []
    for lane in range(lanes):
        length = lane_of.count(lane)
        piece, laid = laid[:length], laid[length:]
        blocks = [piece[begin : begin + in_block] for begin in range(0, length, in_block)]
        drawn = [sorted(b, key=lambda clip: slow_order._draw(settings, number, "order", key(clip))) for b in blocks]
        pieces.append([clip for block in drawn for clip in block])
    return [pieces[lane].pop(0) for lane in lane_of]


@examples(40)
@given(cases(plain=True), st.integers(0, 12), st.integers(2, 4), st.integers(1, 3))
def test_the_batch_of_any_step_is_what_walking_to_it_gives(case: Case, step: int, per_row: int, per_lane: int) -> None:
    batch = case.settings.batch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ROWS_PER_LANE", per_row)
        patch.setattr(module, "SHARDS_PER_LANE", per_lane)
        order = laned(case)
    clips = order.train.tolist()

    def walked() -> list[int]:
        visited: list[int] = []
        for number in range((step + 1) * batch // len(clips) + 1):
            row = number * len(clips) % batch
            visited += slow_epoch(case, number, row, clips, per_row, per_lane)
            assert order.epoch(number).tolist() == visited[-len(clips) :]
        return visited

    found = order.at(step)
    assert found.clips.tolist() == list(islice(walked(), step * batch, (step + 1) * batch))
    assert order.epoch_of(step) == step * batch // len(clips)
    for size in (1, 2, 3):
        world = [DistributedContext(rank=rank, size=size) for rank in range(min(size, batch))]
        parts = [rows(laned_part(order, step, one)) for one in world] if batch >= size else [rows(found)]
        assert [sample for part in parts for sample in part] == rows(found)


def laned_part(order: GlobalOrder, step: int, world: DistributedContext):  # type: ignore[no-untyped-def]
    part = order.at(step, world.rows(order.batch))
    assert same(part, order.at(step).part(world.rows(order.batch)))
    return part


@pytest.mark.parametrize("batch", [96, 90, 101])
def test_every_epoch_visits_every_clip_once_and_a_rank_reads_little_more_than_its_own_lanes(batch: int) -> None:
    table = table_of(200)
    order = order_of(table, batch)
    assert order._lanes is not None
    assert order._lanes.count > 4
    count = len(order.train)
    steps = 3 * count // batch
    visited = np.concatenate([order.at(step).clips for step in range(steps)])
    for epoch in range(2):
        assert np.array_equal(np.sort(visited[epoch * count : (epoch + 1) * count]), order.train)
    assert table.shards is not None
    useful = count / len(np.unique(table.shards[order.train]))
    for size in (1, 2, 4):
        for rank in range(size):
            part = DistributedContext(rank=rank, size=size).rows(batch)
            kept: dict[int, None] = {}  # the shards of two blocks, the least recently read first
            fetched = 0
            for step in range(count // batch):
                for shard in table.shards[order.at(step, part).clips].tolist():
                    fetched += shard not in kept
                    kept.pop(shard, None)
                    kept[shard] = None
                while len(kept) > 2 * order.shards_in_use(part):
                    kept.pop(next(iter(kept)))
            own = order._lanes.lanes_of(part)
            assert own <= order._lanes.count * len(range(batch)[part]) / batch + 2
            assert fetched * useful < 1.15 * own / order._lanes.count * count


def test_lanes_do_not_depend_on_how_clips_and_shards_are_numbered() -> None:
    table = table_of(60)
    assert table.shards is not None
    moved = np.random.default_rng(0).permutation(len(table.keys))
    other = ClipTable(
        [table.keys[clip] for clip in moved],
        [table.groups[clip] for clip in moved],
        table.frames,
        900 - table.shards[moved],
    )
    here, there = order_of(table, 48), order_of(other, 48)
    for step in (0, 7, 30):
        assert np.array_equal(moved[there.at(step).clips], here.at(step).clips)
    assert not np.array_equal(here.at(3).clips, order_of(table, 48, seed=4).at(3).clips)
    assert not np.array_equal(here.epoch(0), here.epoch(1))


@pytest.mark.parametrize("lanes", [True, False], ids=["lanes", "blocks"])
def test_late_clips_join_where_they_should(lanes: bool) -> None:
    table = table_of(60, late=True)
    assert table.late is not None
    order = order_of(table, 40, lanes=lanes, late_from=25)
    early = [clip for clip in order.train.tolist() if not table.late[clip]]
    visited = np.concatenate([order.at(step).clips for step in range(80)])
    before, after = visited[: 25 * 40], visited[25 * 40 :]
    assert not table.late[before].any()
    assert sorted(before[: len(early)].tolist()) == early
    assert sorted(after[: len(order.train)].tolist()) == order.train.tolist()
    assert order.epoch_of(25) == -(-25 * 40 // len(early))


def test_a_rank_needs_the_shards_of_its_lanes_or_those_of_the_block() -> None:
    table = table_of(60)
    laned = order_of(table, 40, block_shards=10)
    # Four shards of each of three lanes, and the one that is begun next.
    assert [laned.shards_in_use(slice(0, rows)) for rows in (40, 8)] == [15, 5]
    blocks = order_of(table, 40, lanes=False, block_shards=10)
    assert [blocks.shards_in_use(slice(0, rows)) for rows in (40, 8)] == [10, 10]

"""Properties of the global order, for any table of clips, any settings and any number of ranks."""

from dataclasses import dataclass
from itertools import islice

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.training.distributed import DistributedContext
from pipeline.training.draws_of_keys import held_out
from pipeline.training.order import GlobalOrder, Windows
from pipeline.training.partners import ClipTable
from tests.pipeline.training import slow_order
from tests.pipeline.training.slow_order import Sample, Settings
from tests.property_settings import examples, names


@dataclass(frozen=True)
class Case:
    table: ClipTable
    settings: Settings

    def order(self) -> GlobalOrder:
        return GlobalOrder(self.table, **self.settings._asdict())


@st.composite
def order_settings(draw: st.DrawFn, window: int, *, pairing: bool) -> Settings:
    return Settings(
        seed=draw(st.integers(0, 2**63)),
        stage=draw(st.integers(1, 2)),
        window=window,
        batch=draw(st.integers(1, 8)),
        validation_fraction=draw(st.floats(0.01, 0.99)),
        pairing=pairing,
        block_shards=draw(st.integers(1, 4)),
        late_from=draw(st.integers(0, 5)),
    )


@st.composite
def cases(draw: st.DrawFn, *, pairing: bool | None = None, min_clips: int = 1, plain: bool = False) -> Case:
    """Draw a table and settings; in a plain one, no clip is late, and whole groups are held out."""
    paired = draw(st.booleans()) if pairing is None else pairing
    people = draw(st.lists(names(), min_size=2, max_size=6, unique=True))
    fewest = max(2 if paired else 1, min_clips)
    identities = [one for one in people for _ in range(draw(st.integers(fewest, fewest + 4)))]
    identities = draw(st.permutations(identities))
    window = draw(st.integers(1, 5))
    count = len(identities)
    frames = draw(st.lists(st.integers(window, window + 6), min_size=count, max_size=count))
    shards = draw(st.none() | st.lists(st.integers(-1, 5), min_size=count, max_size=count))
    prefix = draw(st.text(st.sampled_from("abc-_0"), max_size=3))
    keys = [f"{prefix}{number}" for number in draw(st.permutations(range(count)))]
    by_clip = not plain and draw(st.booleans())
    late = None if plain else draw(st.none() | st.lists(st.booleans(), min_size=count, max_size=count))
    table = ClipTable(
        keys=keys,
        groups=identities,
        frames=np.array(frames),
        shards=None if shards is None else np.array(shards),
        lone="keep" if by_clip else "refuse",  # of a group, a single clip may be left to train on
        late=None if late is None else np.array(late),
        held_out_by=keys if by_clip else None,
    )
    return Case(table, draw(order_settings(window, pairing=paired)))


def rows(batch: Windows) -> list[Sample]:
    columns = [[None] * len(batch.clips) if column is None else column.tolist() for column in batch]
    return [Sample(*row) for row in zip(*columns, strict=True)]


def slow_batch(case: Case, step: int) -> list[Sample]:
    """Return the batch of a step as walking to it sample by sample gives it."""
    batch = case.settings.batch
    return list(islice(slow_order.samples(case.table, case.settings), step * batch, (step + 1) * batch))


def same(one: Windows, other: Windows) -> bool:
    return rows(one) == rows(other)


@examples(40)
@given(cases(), st.integers(0, 12))
def test_the_batch_of_any_step_is_what_walking_to_it_sample_by_sample_gives(case: Case, step: int) -> None:
    assert rows(case.order().at(step)) == slow_batch(case, step)


def test_identities_that_differ_by_a_nul_alone_are_no_partners() -> None:
    table = ClipTable(keys=list("012345"), groups=["", "", " ", " ", "\x00", "\x00"], frames=np.ones(6, dtype=int))
    case = Case(table, Settings(3, 1, 1, 1, 0.25, True, 1))
    assert [rows(case.order().at(step)) for step in range(4)] == [slow_batch(case, step) for step in range(4)]


@examples(30)
@given(cases(), st.lists(st.integers(0, 40), max_size=6), st.integers(0, 40))
def test_a_batch_does_not_depend_on_the_steps_taken_before(case: Case, visited: list[int], step: int) -> None:
    used = case.order()
    for earlier in visited:
        used.at(earlier)
    assert same(used.at(step), case.order().at(step))


@examples(30)
@given(cases(plain=True), st.integers(1, 3))
def test_every_epoch_is_a_permutation_of_the_training_clips(case: Case, epochs: int) -> None:
    order = case.order()
    count = len(order.train)
    steps = -(-epochs * count // case.settings.batch)
    visited = [sample.clip for step in range(steps) for sample in rows(order.at(step))]
    for epoch in range(epochs):
        clips = visited[epoch * count : (epoch + 1) * count]
        assert sorted(clips) == order.train.tolist()
        assert clips == order.epoch(epoch).tolist()


@pytest.mark.slow
@examples(30)
@given(cases(), st.integers(0, 40), st.integers(1, 16))
def test_ranks_partition_the_global_batch_at_any_world_size(case: Case, step: int, size: int) -> None:
    batch = case.order().at(step)
    world = [DistributedContext(rank=rank, size=size) for rank in range(size)]
    parts = [rows(batch.part(one.rows(len(batch.clips)))) for one in world]
    assert [sample for part in parts for sample in part] == rows(batch)
    assert max(map(len, parts)) - min(map(len, parts)) <= (1 if case.settings.batch % size else 0)


@examples(30)
@given(cases(), st.integers(0, 40))
def test_windows_lie_within_clips_of_the_training_identities(case: Case, step: int) -> None:
    table, settings = case.table, case.settings
    held = held_out(table.validation_groups, settings.seed, settings.validation_fraction)
    order = case.order()
    for clip, start, partner, partner_start in rows(order.at(step)):
        assert 0 <= start <= table.frames[clip] - settings.window
        assert table.validation_groups[clip] not in held
        assert (partner is not None) == (partner_start is not None) == settings.pairing
        if partner is not None and partner_start is not None:
            assert 0 <= partner_start <= table.frames[partner] - settings.window
            others = {one for one in order.train.tolist() if table.groups[one] == table.groups[clip]} - {clip}
            assert partner in (others or {clip})


@examples(30)
@given(cases(), st.integers(0, 3))
def test_few_shards_are_in_use_at_a_time(case: Case, epoch: int) -> None:
    assume(case.table.shards is not None)
    assert case.table.shards is not None
    visited = case.table.shards[case.order().epoch(epoch)].tolist()
    last_use = {shard: at for at, shard in enumerate(visited)}
    for at in range(len(visited)):
        in_use = {shard for shard in visited[: at + 1] if last_use[shard] >= at}
        assert len(in_use) <= case.settings.block_shards


@examples(30)
@given(cases(pairing=False), st.data(), st.integers(0, 20), st.integers(2, 9))
def test_the_order_is_that_of_the_keys_however_clips_are_listed_and_shards_numbered(
    case: Case, data: st.DataObject, step: int, factor: int
) -> None:
    table = case.table
    moved = data.draw(st.permutations(range(len(table.keys))))
    listed = ClipTable(
        keys=[table.keys[clip] for clip in moved],
        groups=[table.groups[clip] for clip in moved],
        held_out_by=None if table.held_out_by is None else [table.held_out_by[clip] for clip in moved],
        late=None if table.late is None else table.late[moved],
        frames=table.frames[moved],
        shards=None if table.shards is None else 100 - factor * table.shards[moved],
    )
    here, there = case.order(), Case(listed, case.settings).order()
    assert {moved[clip] for clip in there.validation.tolist()} == set(here.validation.tolist())
    assert [sample._replace(clip=moved[sample.clip]) for sample in rows(there.at(step))] == rows(here.at(step))


@examples(30)
@given(cases(min_clips=15, plain=True), st.sampled_from(["seed", "stage", "epoch"]), st.integers(1, 2**40))
def test_another_seed_stage_or_epoch_gives_another_order(case: Case, what: str, difference: int) -> None:
    # Fifteen clips or more: two orders are equal by chance once in 15! > 10^12.
    order, settings, epoch = case.order(), case.settings, 0
    if what == "epoch":
        other, epoch = case.order(), difference
    elif what == "stage":
        other = Case(case.table, settings._replace(stage=3 - settings.stage)).order()
    else:
        other = Case(case.table, settings._replace(seed=settings.seed + difference)).order()
    assert order.epoch(0).tolist() == case.order().epoch(0).tolist()
    assert order.epoch(0).tolist() != other.epoch(epoch).tolist()


@examples(30)
@given(cases())
def test_validation_holds_out_whole_identities_and_shows_each_of_their_clips_once(case: Case) -> None:
    order, settings, identities = case.order(), case.settings, case.table.validation_groups
    held = slow_order.held_out(case.table, settings)
    assert held_out(identities, settings.seed, settings.validation_fraction) == held
    assert 0 < len(held) < len(set(identities))
    assert order.validation.tolist() == [clip for clip, one in enumerate(identities) if one in held]
    assert sorted([*order.train.tolist(), *order.validation.tolist()]) == list(range(len(identities)))
    batches = order.validation_batches()
    assert [clip for batch in batches for clip in batch.clips.tolist()] == order.validation.tolist()
    assert all(0 < len(batch.clips) <= settings.batch for batch in batches)
    for batch in batches:
        assert np.all((batch.starts >= 0) & (batch.starts <= case.table.frames[batch.clips] - settings.window))
    assert all(same(one, other) for one, other in zip(batches, case.order().validation_batches(), strict=True))

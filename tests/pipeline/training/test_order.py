"""The global order of the clips, which does not depend on the number of workers or restarts."""

import numpy as np
import pytest

from pipeline.training.distributed import DistributedContext
from pipeline.training.draws_of_keys import derive_seed, held_out
from pipeline.training.order import GlobalOrder, Windows
from pipeline.training.partners import ClipTable

IDENTITIES, PER_IDENTITY, FRAMES = 20, 5, 9


def catalogue(per_identity: int = PER_IDENTITY, frames: int = FRAMES) -> ClipTable:
    names = [f"figure{number}" for number in range(IDENTITIES) for _ in range(per_identity)]
    keys = [f"{name}-{number}" for number, name in enumerate(names)]
    return ClipTable(keys, names, np.full(len(keys), frames))


def order(**changes: object) -> GlobalOrder:
    settings: dict[str, object] = {
        "seed": 7,
        "stage": 1,
        "window": 6,
        "batch": 8,
        "validation_fraction": 0.2,
        "pairing": False,
        **changes,
    }
    return GlobalOrder(settings.pop("catalogue", catalogue()), **settings)  # type: ignore[arg-type]


def test_every_epoch_visits_every_clip_exactly_once_although_batches_do_not_divide_epochs() -> None:
    one = order(batch=7)
    count = len(one.train)
    assert count == 80
    assert count % 7 != 0
    visited = np.concatenate([one.at(step).clips for step in range(4 * count // 7 + 1)])
    epochs = [visited[start : start + count] for start in range(0, 4 * count, count)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(one.train)
    assert not np.array_equal(epochs[0], epochs[1])


def test_a_batch_may_be_larger_than_an_epoch() -> None:
    one = order(batch=100)
    visited = np.concatenate([one.at(step).clips for step in range(4)])
    assert np.all(np.bincount(visited)[one.train] == 5)


def test_a_capped_validation_is_a_fixed_sample_from_few_shards() -> None:
    table = catalogue(per_identity=20)
    table = ClipTable(table.keys, table.groups, table.frames, np.arange(len(table.keys)) // 10)
    everything = order(catalogue=table)
    capped, other = order(catalogue=table, validation_clips=25), order(catalogue=table, validation_clips=25, stage=2)
    chosen = np.concatenate([windows.clips for windows in capped.validation_batches()])
    assert len(everything.validated()) == len(everything.validation) == 80
    assert len(chosen) == len(set(chosen.tolist())) == 25
    assert set(chosen.tolist()) < set(everything.validation.tolist())
    assert len(set((chosen // 10).tolist())) == 3, "shards, of which all but one are used completely"
    assert np.array_equal(chosen, other.validated())
    assert np.array_equal(everything.at(3).clips, capped.at(3).clips)
    assert not np.array_equal(chosen, order(catalogue=table, validation_clips=25, seed=8).validated())
    assert len(order(catalogue=table, validation_clips=80).validated()) == 80


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_ranks_together_see_the_global_batch_in_its_order(world_size: int) -> None:
    one = order(pairing=True)
    for step in (0, 5, 31):
        whole = one.at(step)
        parts = [whole.part(DistributedContext(rank=rank, size=world_size).rows(8)) for rank in range(world_size)]
        assert {len(part.clips) for part in parts} == {8 // world_size}
        for together, column in zip(zip(*parts, strict=True), whole, strict=True):
            assert np.array_equal(np.concatenate(together), column)


def test_uneven_parts_still_cover_every_sample_once() -> None:
    rows = [DistributedContext(rank=rank, size=4).rows(6) for rank in range(4)]
    assert [n for part in rows for n in range(6)[part]] == list(range(6))


def test_a_batch_depends_on_the_step_number_only() -> None:
    walked, fresh = order(pairing=True), order(pairing=True)
    batches = [walked.at(step) for step in range(40)]
    for here, there in zip(batches[37], fresh.at(37), strict=True):
        assert np.array_equal(here, there)


def test_the_order_follows_the_keys_not_the_indices_of_the_clips() -> None:
    plain = catalogue()
    turned = ClipTable(plain.keys[::-1], plain.groups[::-1], plain.frames[::-1])
    here, there = order(), order(catalogue=turned)
    last = len(plain.keys) - 1
    assert np.array_equal(here.at(3).clips, last - there.at(3).clips)
    assert np.array_equal(here.at(3).starts, there.at(3).starts)


def test_seed_and_stage_each_change_the_order_and_the_windows() -> None:
    base = order().at(0)
    for other in (order(seed=8).at(0), order(stage=2).at(0)):
        assert not np.array_equal(base.clips, other.clips)
        assert not np.array_equal(base.starts, other.starts)


def test_the_order_is_the_same_on_every_machine_and_version() -> None:
    # Known values: if they change, earlier runs cannot be resumed.
    one = order(pairing=True)
    assert derive_seed(7, "validation", "figure3") == 1434824639038994387
    assert [array.tolist()[:4] for array in one.at(11) if array is not None] == [
        [83, 25, 80, 16],
        [2, 0, 1, 0],
        [84, 28, 84, 15],
        [0, 2, 1, 3],
    ]


def test_the_windows_of_validation_are_the_same_on_every_machine_and_version() -> None:
    # Known values: if they change, validation losses can no longer be compared with those of earlier versions.
    batches = order(batch=6).validation_batches()
    assert [batch.clips.tolist() for batch in batches] == [[*range(n, n + 5)] for n in (10, 20, 60, 70)]
    assert [batch.starts.tolist() for batch in batches] == [
        [0, 3, 1, 0, 1],
        [2, 3, 0, 0, 3],
        [2, 1, 3, 2, 3],
        [3, 1, 2, 0, 2],
    ]


def test_the_epoch_of_a_step_is_that_of_its_first_sample() -> None:
    one = order(batch=7)
    assert [one.epoch_of(step) for step in (0, 11, 12, 22, 23, 34, 35, 1000)] == [0, 0, 1, 1, 2, 2, 3, 87]
    for step in range(40):
        assert one.at(step).clips[0] in one.epoch(one.epoch_of(step))
        assert one.at(step).clips[0] == one.epoch(one.epoch_of(step))[7 * step % 80]


def sharded(shards: int) -> ClipTable:
    """Return clips in shards, in a random order."""
    plain = catalogue()
    return plain_with(plain, np.random.default_rng(0).permutation(len(plain.keys)) % shards)


def plain_with(plain: ClipTable, shards: np.ndarray) -> ClipTable:
    return ClipTable(plain.keys, plain.groups, plain.frames, shards)


def test_every_epoch_visits_blocks_of_shards_in_a_new_order() -> None:
    listed = sharded(10)
    assert listed.shards is not None
    one = order(catalogue=listed, block_shards=3)
    visits = []
    for epoch in range(3):
        clips = one.epoch(epoch)
        assert sorted(clips) == sorted(one.train)
        # Blocks of 3, 3, 3 and 1 shards; no shard is in two of them.
        blocks, left = [], [listed.shards[clip] for clip in clips]
        while left:
            block: set[int] = set()
            while left and (left[0] in block or len(block) < 3):
                block.add(left.pop(0))
            blocks.append(frozenset(block))
        assert [len(block) for block in blocks] == [3, 3, 3, 1]
        assert len(frozenset().union(*blocks)) == 10
        # Within a block clips are shuffled: the shards are not read one after the other.
        changes = np.count_nonzero(np.diff([listed.shards[clip] for clip in clips]))
        assert changes > 2 * 10
        visits.append(tuple(blocks))
    assert len(set(visits)) == 3


def test_blocks_do_not_depend_on_the_numbers_of_the_shards() -> None:
    listed = sharded(10)
    assert listed.shards is not None
    renumbered = plain_with(listed, 100 - 7 * np.asarray(listed.shards))
    here, there = order(catalogue=listed, block_shards=2), order(catalogue=renumbered, block_shards=2)
    assert all(np.array_equal(here.epoch(epoch), there.epoch(epoch)) for epoch in range(3))


def test_shards_make_no_difference_if_one_block_holds_all() -> None:
    assert np.array_equal(order(catalogue=sharded(10), block_shards=10).epoch(1), order().epoch(1))


def test_windows_are_within_their_clips_and_take_every_position() -> None:
    one = order()
    starts = np.concatenate([one.at(step).starts for step in range(100)])
    assert set(starts.tolist()) == set(range(FRAMES - 6 + 1))


def test_a_clip_as_long_as_the_window_starts_at_its_first_frame() -> None:
    assert set(order(window=FRAMES).at(0).starts.tolist()) == {0}


def test_partners_share_the_identity_but_are_another_training_clip() -> None:
    one, listed = order(pairing=True), catalogue()
    chosen: set[tuple[int, int]] = set()
    for step in range(600):
        batch = one.at(step)
        assert batch.partners is not None
        for clip, partner in zip(batch.clips.tolist(), batch.partners.tolist(), strict=True):
            assert clip != partner
            assert listed.groups[clip] == listed.groups[partner]
            chosen.add((clip, partner))
    # Each of the 80 training clips was paired with each of its 4 possible partners.
    assert len(chosen) == 80 * (PER_IDENTITY - 1)


def test_pairing_needs_a_second_clip_of_every_identity() -> None:
    with pytest.raises(
        ValueError, match=r"pairing is identity, but identity figure\d+ has a single training clip \(16 id"
    ):
        order(catalogue=catalogue(per_identity=1), pairing=True)


def test_a_clip_that_is_too_short_is_named() -> None:
    with pytest.raises(ValueError, match=r"figure0-0 has 9 frames and stage1.clip_frames is 10 \(100 clips"):
        order(window=10)


def test_validation_holds_out_whole_identities_and_visits_their_clips_once() -> None:
    one, listed = order(batch=6), catalogue()
    train, validation = ({listed.groups[clip] for clip in part} for part in (one.train, one.validation))
    assert not train & validation
    assert len(validation) == 4
    batches = one.validation_batches()
    assert sorted(clip for batch in batches for clip in batch.clips.tolist()) == one.validation.tolist()
    assert max(len(batch.clips) for batch in batches) <= 6
    assert all(isinstance(batch, Windows) and batch.partners is None for batch in batches)


def test_held_out_identities_are_the_same_for_both_stages_and_any_order_of_the_clips() -> None:
    names = catalogue().groups
    assert held_out(names, 7, 0.2) == held_out(list(reversed(names)), 7, 0.2)
    assert held_out(names, 7, 0.2) != held_out(names, 8, 0.2)
    assert np.array_equal(order().validation, order(stage=2).validation)


@pytest.mark.parametrize(("fraction", "count"), [(0.001, 1), (0.5, 10), (0.999, 19)])
def test_both_sides_of_the_split_have_an_identity(fraction: float, count: int) -> None:
    assert len(held_out(catalogue().groups, 0, fraction)) == count


def test_one_identity_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="has 1 group of clips"):
        held_out(["alone", "alone"], 0, 0.1)

"""An order that opens the indexes it needs is the order of all clips in memory, and reads little for it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.code_priors import prior_clips
from pipeline.training.held_out import HeldOut, find_held_out
from pipeline.training.job import Job, sharded_table
from pipeline.training.loop import train_run
from pipeline.training.order import GlobalOrder
from pipeline.training.partners import ClipTable
from pipeline.training.sharded_clips import ShardedTable
from preprocessing.dataset.mapped_clips import MappedClips
from preprocessing.dataset.reader import ClipDataset
from preprocessing.dataset.schema import SchemaError
from preprocessing.dataset.upgrade import upgrade_dataset
from tests.pipeline.training.mapped_tables import in_order_of_shards, write_mapped
from tests.property_settings import examples


@st.composite
def tables(draw: st.DrawFn) -> tuple[ClipTable, bool]:
    """Return a table, and whether samples are pairs: then each identity is in one shard."""
    paired = draw(st.booleans())
    sizes = draw(st.lists(st.integers(1, 7), min_size=2, max_size=40))
    shards = np.repeat(np.arange(len(sizes)), sizes)
    people = draw(st.integers(1, 3))
    groups = [
        f"{shard if paired else draw(st.integers(0, len(sizes)))}-{row % people}" for row, shard in enumerate(shards)
    ]
    keys = [f"clip{number}" for number in draw(st.permutations(range(len(shards))))]
    frames = np.array(draw(st.lists(st.integers(4, 9), min_size=len(keys), max_size=len(keys))))
    by_clip = not paired and draw(st.booleans())
    return ClipTable(keys, groups, frames, shards, lone="refuse", held_out_by=keys if by_clip else None), paired


def sharded(clips: MappedClips, seed: int, fraction: float, unit: Any) -> ShardedTable:
    return ShardedTable(clips, HeldOut.read(find_held_out(clips, seed, fraction, unit), np.diff(clips.starts)))


def result_of(make: Any) -> Any:
    """Return what is made, or the message of its error."""
    try:
        return make()
    except ValueError as error:
        return str(error)


@pytest.mark.slow
@examples(40)
@given(tables(), st.data())
def test_it_is_the_order_of_the_table(
    tmp_path_factory: pytest.TempPathFactory, made: tuple[ClipTable, bool], data: st.DataObject
) -> None:
    table, paired = made
    table = in_order_of_shards(table)
    clips = write_mapped(tmp_path_factory.mktemp("sharded"), table)
    seed, fraction = data.draw(st.integers(0, 9)), data.draw(st.sampled_from([0.1, 0.4]))
    settings: Any = {
        "seed": seed, "stage": data.draw(st.sampled_from([1, 2])), "window": data.draw(st.integers(2, 5)),
        "batch": data.draw(st.integers(1, 40)), "validation_fraction": fraction, "pairing": paired, "lanes": True,
        "block_shards": data.draw(st.integers(1, 9)),
        "validation_clips": data.draw(st.none() | st.integers(1, 9)),
    }  # fmt: skip
    unit = "identity" if table.held_out_by is None else "key"
    listed = result_of(lambda: GlobalOrder(table, **settings))
    found = result_of(lambda: GlobalOrder(sharded(clips, seed, fraction, unit), **settings))
    if isinstance(listed, str) or isinstance(found, str):
        assert found == listed
        return
    assert (found.train_count, found.validated_count) == (listed.train_count, listed.validated_count)
    for step in data.draw(st.lists(st.integers(0, 200), min_size=3, max_size=3)):
        for rows in (slice(None), slice(settings["batch"] // 3, settings["batch"])):
            for one, other in zip(found.at(step, rows), listed.at(step, rows), strict=True):
                assert (one is None) == (other is None)
                assert one is None or np.array_equal(one, other)
    assert np.array_equal(found.train, listed.train)
    assert np.array_equal(found.validation, listed.validation)
    assert np.array_equal(found.validated(), listed.validated())
    for one, other in zip(found.validation_batches(), listed.validation_batches(), strict=True):
        assert np.array_equal(one.clips, other.clips)
        assert np.array_equal(one.starts, other.starts)
    for one, other in zip(prior_clips(found, 5), prior_clips(listed, 5), strict=True):
        assert np.array_equal(one, other)


def table_of(shards: int, per_shard: int = 12) -> ClipTable:
    numbers = np.repeat(np.arange(shards), per_shard)
    keys = [f"clip{number}" for number in range(len(numbers))]
    groups = [f"one{number // 4}" for number in range(len(numbers))]
    return ClipTable(keys, groups, np.full(len(numbers), 4), numbers)


def test_a_rank_opens_the_indexes_of_its_lanes_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = write_mapped(tmp_path, table_of(128))
    table = sharded(clips, 0, 0.1, "identity")
    opened: set[int] = set()
    read = clips._map
    monkeypatch.setattr(clips, "_map", lambda shard: (opened.add(shard), read(shard))[1])
    order = GlobalOrder(
        table,
        seed=0,
        stage=1,
        window=4,
        batch=64,
        validation_fraction=0.1,
        lanes=True,
        validation_clips=20,
        block_shards=8,
    )
    assert opened == set()
    for step in range(3):
        order.at(step, slice(0, 8))
    assert 0 < len(opened) <= order.shards_in_use(slice(0, 8)) + 2 < 20
    order.validated()
    assert len(opened) < 40


def test_identities_in_several_shards_are_noticed(tmp_path: Path) -> None:
    table = table_of(4)
    assert not sharded(write_mapped(tmp_path / "a", table), 0, 0.3, "identity").held.has_shared_groups
    spread = ClipTable(table.keys, ["one0", *table.groups[1:-1], "one0"], table.frames, table.shards)
    assert sharded(write_mapped(tmp_path / "b", spread), 0, 0.3, "identity").held.has_shared_groups


def test_what_is_no_list_of_held_out_clips_is_refused(tmp_path: Path) -> None:
    clips = write_mapped(tmp_path, table_of(4))
    data, sizes = find_held_out(clips, 0, 0.3, "identity"), np.diff(clips.starts)
    held = HeldOut.read(data, sizes)
    assert held.trained.sum() + sum(int(held.is_held(shard, 12).sum()) for shard in range(4)) == 48
    with pytest.raises(SchemaError, match="is about 4 shards, but the dataset has 3"):
        HeldOut.read(data, sizes[:3])
    with pytest.raises(SchemaError, match="is about shards of other sizes"):
        HeldOut.read(data, sizes + 8)
    with pytest.raises(SchemaError, match="contradicts itself about the clips to train on"):
        HeldOut.read(data, sizes + 1)
    with pytest.raises(SchemaError, match="is not an Arrow file"):
        HeldOut.read(data[:-1], sizes)


@pytest.mark.slow
def test_a_training_has_the_same_weights_on_an_upgraded_dataset(
    tiny_job: Callable[..., Job], small_figures: Path, recorder: Any, tmp_path: Path
) -> None:
    shutil.copytree(small_figures, tmp_path / "data")
    upgrade_dataset(str(tmp_path / "data"))
    changes: dict[str, Any] = {"stage1": {"steps": 4, "pairing": "identity"}, "stage2": {"steps": 3}, "audit": True}
    found = []
    for clips in (ClipDataset(str(small_figures), "train"), ClipDataset(str(tmp_path / "data"), "train")):
        job, recorded = tiny_job(clips=clips, picture_interval=4, checkpoint_interval=2, **changes), recorder()
        assert (sharded_table(job) is None) == (clips.mapped is None)
        train_run(job, recorded)
        found.append(recorded)
    assert found[0].audit == found[1].audit
    for position, state in found[0].states.items():
        other = found[1].states[position].weights
        assert all(torch.equal(value, other[name]) for name, value in state.weights.items())
    # A run that was begun before the upgrade is resumed after it.
    resumed = recorder()
    train_run(job, resumed, resume=found[0].states[1, 2])
    assert all(
        torch.equal(value, found[0].states[2, 3].weights[name]) for name, value in resumed.states[2, 3].weights.items()
    )

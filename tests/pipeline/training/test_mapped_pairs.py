"""Pairing by appearance or video has the same order from the mapped indexes of format 3 as from lists of names."""

import dataclasses
import hashlib
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training import draws_of_keys, table_clips
from pipeline.training.order import GlobalOrder
from pipeline.training.partners import ClipTable, FirstClips
from preprocessing.appearance import search
from preprocessing.appearance.mining import MiningSettings
from preprocessing.appearance.pairs import MinedPairs, Video
from preprocessing.dataset.clip_index import ClipIndex
from preprocessing.dataset.mapped_clips import MappedClips
from tests.pipeline.training.mapped_tables import write_mapped
from tests.property_settings import examples

CLIPS, PER_SHARD = 60, 7
SOURCES = ("b", "a\N{LATIN SMALL LETTER E WITH ACUTE}", "a", "\N{GRINNING FACE}", "B", "a\0", "\uffff")


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> MappedClips:
    keys = [f"k{number * 7919 % 1000:03d}" for number in range(CLIPS)]
    sources = [SOURCES[number * number % len(SOURCES)] for number in range(CLIPS)]
    table = ClipTable(keys, sources, np.full(CLIPS, 9), np.arange(CLIPS) // PER_SHARD)
    return write_mapped(tmp_path_factory.mktemp("mapped"), table)


def test_videos_have_the_numbers_of_their_names(mapped: MappedClips) -> None:
    listed: Any = SimpleNamespace(sources=list(mapped.sources), starts_s=mapped.starts_s)
    assert len(set(listed.sources)) > 3
    assert np.array_equal(Video.of(SimpleNamespace(mapped=mapped)).sources, Video.of(listed).sources)


def test_mined_pairs_are_found_again_under_the_name_they_have_for_a_list(mapped: MappedClips) -> None:
    vectors, video = np.zeros((CLIPS, 4), dtype=np.int16), Video.of(SimpleNamespace(mapped=mapped))
    for keys in (mapped.keys, ["one"], [], ['"é', "\u2028", "x, y"]):
        clips: Any = SimpleNamespace(keys=keys, shards=[{"sha256": "00"}, {"sha256": "11"}])
        settings = {name: value for name, value in dataclasses.asdict(MiningSettings()).items() if name != "threads"}
        stated = [search.VERSION, search.MINING_VERSION, settings, vectors.shape, list(keys), ["00", "11"]]
        digest = hashlib.sha256(json.dumps(stated).encode())
        for array in (vectors, video.sources, video.starts):
            digest.update(array.tobytes())
        assert search._identity(clips, vectors, video, MiningSettings()) == digest.hexdigest()


def orders(mapped: MappedClips, numbers: Any, *, pairs: bool, by_clip: bool) -> tuple[GlobalOrder, GlobalOrder]:
    """Return the order from mapped indexes, and that from lists."""
    partners = np.stack([(np.arange(CLIPS) + step) % CLIPS for step in (1, 2)], axis=1)
    mined = MinedPairs(
        np.arange(CLIPS + 1) * 2, np.sort(partners, axis=1).reshape(-1), np.zeros(2 * CLIPS, dtype=np.float32),
        np.zeros(2), np.arange(CLIPS) % 5 == 0,
    )  # fmt: skip
    made = []
    for keys, is_mapped in ((mapped.keys, True), (list(mapped.keys), False)):
        own = np.arange(CLIPS)
        groups: Any = FirstClips(keys, numbers) if is_mapped else [keys[number] for number in numbers]
        held: Any = (FirstClips(keys, own) if is_mapped else keys) if by_clip else None
        frames, shards = np.asarray(mapped.clip_frames), np.asarray(mapped.clip_shards)
        late = mined.one_motion if pairs else None
        table = ClipTable(keys, groups, frames, shards, mined if pairs else None, "keep", late, held)
        made.append(
            GlobalOrder(
                table, seed=3, stage=1, window=4, batch=6, validation_fraction=0.3, pairing=True, lanes=True,
                late_from=2 if pairs else 0,
            )
        )  # fmt: skip
    return made[0], made[1]


def same(one: GlobalOrder, other: GlobalOrder) -> bool:
    return (
        np.array_equal(one.train, other.train)
        and np.array_equal(one.validation, other.validation)
        and all(
            np.array_equal(a, b)
            for step in (0, 1, 2, 17)
            for a, b in zip(one.at(step), other.at(step), strict=True)
            if a is not None and b is not None
        )
    )


@examples(30)
@given(data=st.data(), pairs=st.booleans(), by_clip=st.booleans())
def test_the_order_is_that_of_lists_of_names(
    mapped: MappedClips, data: st.DataObject, pairs: bool, by_clip: bool
) -> None:
    firsts = data.draw(st.lists(st.integers(0, CLIPS - 1), min_size=CLIPS - 1, max_size=CLIPS - 1))
    numbers = np.minimum([*firsts, CLIPS - 1], np.arange(CLIPS))  # two groups at least
    assert same(*orders(mapped, numbers, pairs=pairs, by_clip=by_clip))


def test_groups_with_the_same_draw_are_held_out_by_name(mapped: MappedClips, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (draws_of_keys, table_clips):
        monkeypatch.setattr(module, "draw_of_group", lambda group, seed: int(group[-1]) // 5)
    one, other = orders(mapped, np.arange(CLIPS), pairs=True, by_clip=False)
    assert len(one.validation) == round(0.3 * CLIPS)
    assert same(one, other)


def test_no_list_of_names_is_made(mapped: MappedClips, monkeypatch: pytest.MonkeyPatch) -> None:
    read = ClipIndex.names

    def some(index: ClipIndex, name: str, rows: Any = None) -> list[str]:
        assert rows is not None, "a list of all names"
        return read(index, name, rows)

    monkeypatch.setattr(ClipIndex, "names", some)
    keys = mapped.keys
    groups = FirstClips(keys, np.arange(CLIPS) // 3 * 3)
    frames, shards = np.asarray(mapped.clip_frames), np.asarray(mapped.clip_shards)
    table = ClipTable(keys, groups, frames, shards, lone="keep")
    order = GlobalOrder(table, seed=3, stage=1, window=4, batch=6, validation_fraction=0.3, pairing=True, lanes=True)
    assert len(order.at(0).clips) == 6

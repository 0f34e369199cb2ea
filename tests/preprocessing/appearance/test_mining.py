"""Mined pairs are those of a slow search clip by clip; no label, and no order of the clips, has a part in them."""

import dataclasses
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.appearance import mining
from preprocessing.appearance.mining import MiningSettings, mine
from preprocessing.appearance.pairs import Video
from preprocessing.appearance.stored import read_descriptors
from preprocessing.dataset.reader import ClipDataset
from tests.preprocessing.appearance import slow_mining
from tests.preprocessing.appearance.slow_mining import apart, listed
from tests.property_settings import examples

SETTINGS = MiningSettings(neighbours=3, mutual=True, max_distance=None)


def people(count: int, clips: int, *, seed: int = 0, noise: float = 0.1) -> Any:
    """Return descriptors, int16 [count * clips, 16], of people whose clips differ a little; clip n is of n // clips."""
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(count, 16)).repeat(clips, axis=0)
    vectors += noise * generator.normal(size=vectors.shape)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.rint(unit * (2**15 - 1)).astype(np.int16)


@dataclasses.dataclass(frozen=True)
class Case:
    descriptors: Any
    video: Video
    settings: MiningSettings


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw few clips of few values, so that ties, copies, zeros and windows of one video are frequent."""
    count = draw(st.integers(0, 14))
    rows = draw(st.lists(st.lists(st.integers(-3, 3), min_size=4, max_size=4), min_size=count, max_size=count))
    starts = draw(st.lists(st.integers(0, 4), min_size=count, max_size=count))
    sources = draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    settings = MiningSettings(
        neighbours=draw(st.integers(1, 6)),
        mutual=draw(st.booleans()),
        max_distance=draw(st.none() | st.sampled_from([0.05, 0.4, 1.1])),
    )
    video = Video(np.array(sources, dtype=np.int64), np.array(starts, dtype=np.float64))
    return Case(np.array(rows, dtype=np.float64).reshape(count, 4), video, settings)


@examples(50)
@given(cases())
def test_pairs_are_those_of_the_slow_search(case: Case) -> None:
    found = mine(case.descriptors, case.video, case.settings)
    assert len(found) == len(case.descriptors)
    assert listed(found) == slow_mining.mine(slow_mining.unit(case.descriptors), case.video, case.settings)


@pytest.mark.parametrize("mutual", [True, False])
@pytest.mark.parametrize("neighbours", [1, 3, 8, 100])
@pytest.mark.parametrize("seed", range(2))
def test_pairs_of_people_are_those_of_the_slow_search(neighbours: int, mutual: bool, seed: int) -> None:
    vectors = people(8, 4, seed=seed, noise=0.6)
    settings = MiningSettings(neighbours=neighbours, mutual=mutual, max_distance=None)
    found = listed(mine(vectors, apart(32), settings))
    assert found == slow_mining.mine(vectors, apart(32), settings)
    assert found.pairs


def test_neighbours_end_at_the_widest_gap() -> None:
    # Three people of 4, 3 and 2 clips, far apart: at most 6 neighbours, and yet nobody is paired with another.
    vectors = people(3, 4, noise=0.02)[[0, 1, 2, 3, 4, 5, 6, 8, 9]]
    owners = [0, 0, 0, 0, 1, 1, 1, 2, 2]
    found = listed(mine(vectors, apart(9), dataclasses.replace(SETTINGS, neighbours=6)))
    expected = [(one, two) for one in range(9) for two in range(9) if one != two and owners[one] == owners[two]]
    assert found.pairs == expected
    assert found.mutual_share == 1


def test_a_pair_is_mutual_unless_one_direction_is_enough() -> None:
    # On a circle: the nearest clip of each is the one before it.
    angles = np.cumsum([0, 0.1, 0.2, 0.3])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    one = MiningSettings(neighbours=1, mutual=True, max_distance=None)
    assert listed(mine(vectors, apart(4), one)).pairs == [(0, 1), (1, 0)]
    found = listed(mine(vectors, apart(4), dataclasses.replace(one, mutual=False)))
    assert found.pairs == [(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2)]
    assert found.mutual_share == 0.5


def test_no_pair_is_further_apart_than_the_limit() -> None:
    vectors = people(6, 4, noise=0.5)
    free = mine(vectors, apart(24), dataclasses.replace(SETTINGS, mutual=False))
    limit = float(np.median(free.distances))
    kept = mine(vectors, apart(24), dataclasses.replace(SETTINGS, mutual=False, max_distance=limit))
    assert 0 < len(kept.partners) < len(free.partners)
    assert kept.distances.max() <= limit
    near = free.distances <= limit
    assert listed(kept).pairs == [pair for pair, is_near in zip(listed(free).pairs, near, strict=True) if is_near]


@pytest.mark.parametrize("clips", [0, 1, 2])
@pytest.mark.parametrize("neighbours", [1, 8])
def test_too_few_clips_have_no_pair(clips: int, neighbours: int) -> None:
    # The widest gap needs a clip that is no neighbour.
    found = mine(people(1, 2)[:clips], apart(clips), dataclasses.replace(SETTINGS, neighbours=neighbours))
    assert len(found) == clips
    assert len(found.partners) == 0


def test_three_clips_may_have_a_pair() -> None:
    vectors = people(2, 2, noise=0.01)[:3]
    assert listed(mine(vectors, apart(3), dataclasses.replace(SETTINGS, neighbours=8))).pairs == [(0, 1), (1, 0)]


def test_clips_without_a_descriptor_have_no_partner() -> None:
    vectors = people(3, 4, noise=0.02)
    vectors[[0, 5, 6]] = 0
    found = listed(mine(vectors, apart(12), SETTINGS))
    assert not {0, 5, 6} & {clip for pair in found.pairs for clip in pair}
    assert found == slow_mining.mine(vectors, apart(12), SETTINGS)
    assert found.pairs
    nothing = mine(np.zeros((5, 16), dtype=np.int16), apart(5), SETTINGS)
    assert (len(nothing), len(nothing.partners), nothing.summary[0]) == (5, 0, 0)


def test_many_copies_of_a_clip_are_paired_with_the_first_ones() -> None:
    vectors, settings = people(1, 1).repeat(9, axis=0), dataclasses.replace(SETTINGS, neighbours=2, mutual=False)
    found = mine(vectors, apart(9), settings)
    assert listed(found) == slow_mining.mine(vectors, apart(9), settings)
    assert all(min(pair) < 2 for pair in listed(found).pairs)
    assert found.distances.max() < 1e-15


def test_the_exact_order_decides_where_the_search_rounds() -> None:
    # Distances of 1e-8 differ by less than the search in float32 can tell.
    vectors = people(1, 1).repeat(14, axis=0) + np.random.default_rng(6).integers(-4, 5, (14, 16)).astype(np.int16)
    settings = dataclasses.replace(SETTINGS, neighbours=2, mutual=False)
    found = mine(vectors, apart(14), settings)
    assert 0 < found.distances.max() < 1e-6
    assert listed(found) == slow_mining.mine(vectors, apart(14), settings)


def test_windows_of_a_video_are_no_pair_while_a_clip_has_another_partner() -> None:
    # Two people in two videos of five windows each, and one person in a single video.
    vectors = people(3, 10, noise=0.02)[:25]
    video = Video(np.arange(5).repeat(5), np.tile(np.arange(5.0), 5))
    settings = dataclasses.replace(SETTINGS, neighbours=8)
    found = listed(mine(vectors, video, settings))
    assert found == slow_mining.mine(vectors, video, settings)
    for clip in range(20):
        assert {other // 5 for one, other in found.pairs if one == clip} == {clip // 5 ^ 1}
    for clip in range(20, 25):
        assert [other for one, other in found.pairs if one == clip] == [n for n in range(20, 25) if n != clip]


def test_many_windows_of_one_video_do_not_crowd_out_the_others() -> None:
    """Four videos of each of three people, of 30 windows each: partners come from all other videos of the person."""
    generator = np.random.default_rng(3)
    person, action = (
        np.repeat(generator.normal(size=(count, 16)), 30 * 4 // each, axis=0) for count, each in ((3, 1), (12, 4))
    )
    vectors = person + 0.2 * action + 0.02 * generator.normal(size=person.shape)
    video = Video(np.arange(12).repeat(30), np.tile(np.arange(30.0), 12))
    found = mine(vectors, video, dataclasses.replace(SETTINGS, neighbours=4))
    for clip in range(0, 360, 7):
        partners = found.partners[found.offsets[clip] : found.offsets[clip + 1]]
        others = {number for number in range(12) if number // 4 == clip // 120} - {clip // 30}
        assert set((partners // 30).tolist()) == others
        assert 3 * 8 <= len(partners) <= mining.MAX_PARTNERS


@pytest.mark.parametrize("mutual", [True, False])
def test_moving_the_clips_moves_the_pairs(mutual: bool) -> None:
    vectors, settings = people(10, 4, noise=0.4), dataclasses.replace(SETTINGS, mutual=mutual)
    moved = np.random.default_rng(4).permutation(40)
    here, there = mine(vectors, apart(40), settings), mine(vectors[moved], apart(40), settings)
    assert sorted((int(moved[a]), int(moved[b])) for a, b in listed(there).pairs) == listed(here).pairs


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int32])
def test_the_length_of_embeddings_makes_no_difference(dtype: Any) -> None:
    vectors = people(8, 4, noise=0.3)
    lengths = np.random.default_rng(5).integers(1, 50, (32, 1))
    found = mine((vectors.astype(np.int64) * lengths).astype(dtype), apart(32), SETTINGS)
    assert listed(found).pairs == listed(mine(vectors, apart(32), SETTINGS)).pairs


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_descriptors_give_the_same_bytes(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = people(30, 4, noise=0.4)
    once = mine(vectors, apart(120), SETTINGS)
    monkeypatch.setattr(mining, "_CHUNK", 7)
    again = mine(vectors, apart(120), dataclasses.replace(SETTINGS, threads=threads))
    assert once.to_bytes() == again.to_bytes()
    assert torch.get_num_threads() == 1


def test_clusters_find_nearly_the_same_pairs_and_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = people(500, 4, noise=0.25)
    exact = mine(vectors, apart(2000), SETTINGS)
    monkeypatch.setattr(mining, "EXACT_CLIPS", 1000)
    monkeypatch.setattr(mining, "LISTS_PROBED", 8)
    searched: list[int] = []
    ranked = mining._ranked
    monkeypatch.setattr(mining, "_ranked", lambda *given: searched.append(1) or ranked(*given))  # type: ignore[func-returns-value]
    near = mine(vectors, apart(2000), SETTINGS)
    assert searched
    here, there = set(listed(exact).pairs), set(listed(near).pairs)
    assert len(here) > 4000
    assert here != there  # otherwise the clusters were not used
    assert len(here & there) > 0.95 * max(len(here), len(there))
    assert near.to_bytes() == mine(vectors, apart(2000), SETTINGS).to_bytes()


def test_distances_of_many_pairs_take_little_memory_and_are_those_of_each_pair() -> None:
    vectors = people(1000, 2)
    first, second = np.random.default_rng(0).integers(0, len(vectors), (2, 200_000))
    tracemalloc.start()
    try:
        found = mining._distances(vectors, first, second)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * found.nbytes  # all descriptors at once would take 32 times as much, as would each product
    for pair in (0, 4095, 4096, 199_999):
        one, other = (vectors[rows[pair]].astype(float) for rows in (first, second))
        assert found[pair] == pytest.approx(1 - one @ other / np.sqrt((one @ one) * (other @ other)), abs=1e-12)


def test_the_summary_compares_pairs_with_clips_drawn_at_random() -> None:
    pairs = mine(people(20, 4), apart(80), SETTINGS)
    assert pairs.summary[0] > 0.9
    assert np.median(pairs.distances) < 0.1 < 0.7 < pairs.summary[1] < 1.3


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["figures_dataset", "small_figures"])
def test_pairs_of_figures_show_one_identity_and_never_the_same_action(
    request: pytest.FixtureRequest, tmp_path: Path, dataset: str
) -> None:
    clips = ClipDataset(str(request.getfixturevalue(dataset)), "train")
    pairs = listed(mine(read_descriptors(clips, "colour", tmp_path), Video.of(clips), SETTINGS)).pairs
    assert all(clips.identities[a] == clips.identities[b] for a, b in pairs)
    assert not any(clips.labels["action"][a] == clips.labels["action"][b] for a, b in pairs)
    assert len({first for first, _ in pairs}) > 0.6 * len(clips)

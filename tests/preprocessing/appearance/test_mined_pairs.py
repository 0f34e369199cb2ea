"""Lists of pairs: which clips they link, their bytes, and which clips are windows of one video."""

import io
import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.appearance.pairs import MinedPairs, Video
from tests.preprocessing.appearance.slow_mining import apart
from tests.property_settings import examples


def linked(count: int, links: list[tuple[int, int]]) -> MinedPairs:
    """Return pairs in both directions, with distances that tell them apart."""
    both = sorted({*links, *((two, one) for one, two in links)})
    pairs = np.array(both, dtype=np.int64).reshape(-1, 2)
    distances = np.arange(len(pairs)) / 1000
    return MinedPairs.of(count, pairs, distances, mutual_share=0.5, random_distances=np.array([0.25, 0.75, 1.0]))


def slow_groups(count: int, links: list[tuple[int, int]]) -> list[int]:
    """Return the first clip that each clip is linked with, or the clip itself where the group is too large."""
    groups = [{clip} for clip in range(count)]
    for one, two in links:
        merged = next(group for group in groups if one in group) | next(group for group in groups if two in group)
        groups = [group for group in groups if not group & merged] + [merged]
    owner = {clip: group for group in groups for clip in group}
    too_large = max(0.2 * count, 2)
    return [clip if len(owner[clip]) > too_large else min(owner[clip]) for clip in range(count)]


@st.composite
def links(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    count = draw(st.integers(0, 40))
    clips = st.integers(0, max(count - 1, 0))
    listed = draw(st.lists(st.tuples(clips, clips), max_size=count)) if count else []
    return count, [(one, two) for one, two in listed if one != two]


@pytest.mark.slow
@examples(60)
@given(links())
def test_groups_are_those_of_a_slow_union(case: tuple[int, list[tuple[int, int]]]) -> None:
    count, listed = case
    assert linked(count, listed).groups(apart(count)).tolist() == slow_groups(count, listed)


@pytest.mark.parametrize("order", ["ascending", "descending", "mixed"])
def test_a_long_chain_is_one_group(order: str) -> None:
    chain = {
        "ascending": list(range(200)),
        "descending": list(range(199, -1, -1)),
        "mixed": np.random.default_rng(0).permutation(200).tolist(),
    }[order]
    found = linked(1000, list(itertools.pairwise(chain))).groups(apart(1000))
    assert found.tolist() == [0] * 200 + list(range(200, 1000))


@pytest.mark.parametrize(("size", "is_kept"), [(2, True), (20, True), (21, False), (100, False)])
def test_a_group_of_more_than_a_fifth_of_all_clips_falls_apart(size: int, is_kept: bool) -> None:
    found = linked(100, list(itertools.pairwise(range(size)))).groups(apart(100))
    assert found[:size].tolist() == ([0] * size if is_kept else list(range(size)))
    assert found[size:].tolist() == list(range(size, 100))


@pytest.mark.parametrize("count", [2, 3, 4, 9])
def test_two_clips_are_never_too_large_a_group(count: int) -> None:
    assert linked(count, [(0, 1)]).groups(apart(count)).tolist() == [0, 0, *range(2, count)]


def test_each_clip_has_its_partners_in_ascending_order() -> None:
    pairs = linked(5, [(3, 1), (0, 3), (3, 4)])
    of = [pairs.partners[pairs.offsets[clip] : pairs.offsets[clip + 1]].tolist() for clip in range(5)]
    assert of == [[3], [3], [], [0, 1, 4], [3]]
    assert pairs.firsts.tolist() == [0, 1, 3, 3, 3, 4]
    assert len(pairs) == 5
    assert pairs.summary.tolist() == [0.5, 0.75]


@examples(15)
@given(links())
def test_bytes_come_back(case: tuple[int, list[tuple[int, int]]]) -> None:
    pairs = linked(*case)
    data = pairs.to_bytes()
    again = MinedPairs.from_bytes(data)
    for name in ("offsets", "partners", "distances", "summary"):
        one, two = getattr(pairs, name), getattr(again, name)
        assert one.dtype == two.dtype
        assert np.array_equal(one, two)
    assert again.to_bytes() == data


PAIRS = linked(6, [(0, 1), (2, 5), (1, 4)])
ARRAYS: dict[str, Any] = {name: getattr(PAIRS, name) for name in PAIRS.__dataclass_fields__}


def packed() -> bytes:
    """Return an .npz whose arrays are compressed, which can unpack to a thousand times their bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **ARRAYS)
    return buffer.getvalue()


def npz(**changes: Any) -> bytes:
    """Return the content of an .npz with some arrays changed; None leaves one out."""
    buffer = io.BytesIO()
    arrays = {name: array for name, array in {**ARRAYS, **changes}.items() if array is not None}
    np.savez(buffer, allow_pickle=True, **arrays)
    return buffer.getvalue()


def test_an_npz_of_the_same_arrays_is_a_list_of_pairs() -> None:
    assert MinedPairs.from_bytes(npz()).partners.tolist() == PAIRS.partners.tolist()


def test_of_older_pairs_no_clip_joins_late() -> None:
    assert MinedPairs.from_bytes(npz(one_motion=None)).one_motion.tolist() == [False] * len(PAIRS)
    assert MinedPairs.from_bytes(npz(one_motion=~PAIRS.one_motion)).one_motion.all()


HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "text": b"no pairs",
    "npy": npz()[:6] + b"\x93NUMPY" * 20,
    "cut short": npz()[:-30],
    "half": npz()[: len(npz()) // 2],
    "pickle": npz(offsets=np.array([{}], dtype=object)),
    "pickled partners": npz(partners=np.array([1, "a"], dtype=object)),
    **{f"no {name}": npz(**{name: None}) for name in ARRAYS if name != "one_motion"},
    **{f"two dimensions of {name}": npz(**{name: array[:, None]}) for name, array in ARRAYS.items()},
    **{f"no dimension of {name}": npz(**{name: array[0]}) for name, array in ARRAYS.items()},
    **{f"text for {name}": npz(**{name: array.astype(str)}) for name, array in ARRAYS.items()},
    "no clip at all": npz(offsets=np.zeros(0, dtype=np.int64)),
    "late start": npz(offsets=ARRAYS["offsets"] + 1),
    "descending offsets": npz(offsets=ARRAYS["offsets"][[0, 2, 1, 3, 4, 5, 6]]),
    "negative offsets": npz(offsets=-ARRAYS["offsets"]),
    "offsets beyond the end": npz(offsets=np.array([0, 1, 2, 3, 4, 5, 7])),
    "offsets before the end": npz(offsets=np.array([0, 1, 2, 3, 4, 5, 5])),
    "a partner too many": npz(partners=np.append(ARRAYS["partners"], 0)),
    "a partner that is no clip": npz(partners=ARRAYS["partners"] + 1),
    "a negative partner": npz(partners=ARRAYS["partners"] - 2),
    "narrow partners": npz(partners=ARRAYS["partners"].astype(np.int32)),
    "fractions": npz(offsets=ARRAYS["offsets"].astype(np.float64)),
    "a distance too few": npz(distances=ARRAYS["distances"][1:]),
    "long summary": npz(summary=np.zeros(3)),
    "the motion of a clip too many": npz(one_motion=np.append(ARRAYS["one_motion"], True)),
    "packed": packed(),
    "numbers for the motion": npz(one_motion=ARRAYS["one_motion"].astype(np.int64)),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_bytes_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="not a list of pairs"):
        MinedPairs.from_bytes(HOSTILE[kind])


@examples(60)
@given(st.binary(max_size=200) | st.tuples(st.integers(0, len(npz()) - 1), st.integers(1, 255)))
def test_damaged_bytes_are_refused_or_a_list_of_pairs(data: bytes | tuple[int, int]) -> None:
    if isinstance(data, tuple):
        changed = bytearray(npz())
        changed[data[0]] ^= data[1]
        data = bytes(changed)
    try:
        pairs = MinedPairs.from_bytes(data)
    except ValueError:
        return
    assert len(pairs.groups(apart(len(pairs)))) == len(pairs)


def video(*clips: tuple[int, float]) -> Video:
    """Return clips given by source and start."""
    sources, starts = (np.array(column) for column in zip(*clips, strict=True))
    return Video(sources, starts.astype(np.float64))


def test_the_windows_of_a_video_belong_together() -> None:
    cut = video((2, 0), (0, 0), (2, 1), (0, 2), (3, 0))
    assert cut.are_videos
    assert cut.most_windows() == 2
    assert cut.firsts().tolist() == [0, 1, 0, 1, 4]
    assert cut.same(np.array([0, 0, 0]), np.array([2, 1, 0])).tolist() == [True, False, True]


def test_a_source_with_two_clips_at_one_time_is_no_video() -> None:
    cut = video((0, 0), (1, 0), (0, 0), (0, 1))
    assert not cut.are_videos
    assert cut.most_windows() == 1
    assert cut.firsts().tolist() == [0, 1, 2, 3]
    assert not cut.same(np.array([0, 0]), np.array([2, 3])).any()


def test_windows_of_a_video_are_held_out_together_with_those_that_they_are_linked_with() -> None:
    cut = video((0, 0), (0, 1), (1, 0), (1, 1), *((2 + n, 0) for n in range(30)))
    assert linked(34, [(1, 2)]).groups(cut)[:6].tolist() == [0, 0, 0, 0, 4, 5]
    # Linked with half of all clips: what falls apart are videos, not windows.
    many = [(n, n + 1) for n in range(20)]
    assert linked(34, many).groups(cut)[:6].tolist() == [0, 0, 2, 2, 4, 5]


def test_clips_are_described_by_source_and_start() -> None:
    found = Video.of(SimpleNamespace(sources=["7.mp4", "3.mp4", "7.mp4"], starts_s=[0.5, 0, 1]))
    assert found.sources[0] == found.sources[2] != found.sources[1]
    assert found.starts.tolist() == [0.5, 0, 1]

"""Lists of pairs: which clips they link, their bytes, and which clips are windows of one video."""

import io
import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.appearance.pairs import MAX_OVERLAPS, MinedPairs, Video
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


@examples(60)
@given(links())
def test_groups_are_those_of_a_slow_union(case: tuple[int, list[tuple[int, int]]]) -> None:
    count, listed = case
    assert linked(count, listed).groups().tolist() == slow_groups(count, listed)


@pytest.mark.parametrize("order", ["ascending", "descending", "mixed"])
def test_a_long_chain_is_one_group(order: str) -> None:
    chain = {
        "ascending": list(range(200)),
        "descending": list(range(199, -1, -1)),
        "mixed": np.random.default_rng(0).permutation(200).tolist(),
    }[order]
    found = linked(1000, list(itertools.pairwise(chain))).groups()
    assert found.tolist() == [0] * 200 + list(range(200, 1000))


@pytest.mark.parametrize(("size", "is_kept"), [(2, True), (20, True), (21, False), (100, False)])
def test_a_group_of_more_than_a_fifth_of_all_clips_falls_apart(size: int, is_kept: bool) -> None:
    found = linked(100, list(itertools.pairwise(range(size)))).groups()
    assert found[:size].tolist() == ([0] * size if is_kept else list(range(size)))
    assert found[size:].tolist() == list(range(size, 100))


@pytest.mark.parametrize("count", [2, 3, 4, 9])
def test_two_clips_are_never_too_large_a_group(count: int) -> None:
    assert linked(count, [(0, 1)]).groups().tolist() == [0, 0, *range(2, count)]


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
ARRAYS: dict[str, Any] = {name: getattr(PAIRS, name) for name in ("offsets", "partners", "distances", "summary")}


def npz(**changes: Any) -> bytes:
    """Return the content of an .npz with some arrays changed; None leaves one out."""
    buffer = io.BytesIO()
    arrays = {name: array for name, array in {**ARRAYS, **changes}.items() if array is not None}
    np.savez(buffer, allow_pickle=True, **arrays)
    return buffer.getvalue()


def test_an_npz_of_the_same_arrays_is_a_list_of_pairs() -> None:
    assert MinedPairs.from_bytes(npz()).partners.tolist() == PAIRS.partners.tolist()


HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "text": b"no pairs",
    "npy": npz()[:6] + b"\x93NUMPY" * 20,
    "cut short": npz()[:-30],
    "half": npz()[: len(npz()) // 2],
    "pickle": npz(offsets=np.array([{}], dtype=object)),
    "pickled partners": npz(partners=np.array([1, "a"], dtype=object)),
    **{f"no {name}": npz(**{name: None}) for name in ARRAYS},
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
    assert len(pairs.groups()) == len(pairs)


def video(*clips: tuple[int, float, float]) -> Video:
    """Return clips given by source, start and length."""
    sources, starts, seconds = (np.array(column) for column in zip(*clips, strict=True))
    return Video(sources, starts.astype(np.float64), seconds.astype(np.float64))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ((0, 5.5, 1), True),
        ((0, 4.5, 1), True),
        ((0, 6, 1), False),  # begins where the first ends
        ((0, 4, 1), False),
        ((0, 9, 1), False),
        ((1, 5.5, 1), False),  # another video
        ((0, 5, 1), False),  # an input of its own
    ],
)
def test_windows_overlap_if_they_share_frames(other: tuple[int, float, float], expected: bool) -> None:
    both = video((0, 5, 1), other)
    assert both.overlap(np.array([0, 1]), np.array([1, 0])).tolist() == [expected, expected]


def test_windows_of_different_lengths_overlap_in_both_directions() -> None:
    both = video((0, 0, 3), (0, 2, 0.5))
    assert both.overlap(np.array([0, 1]), np.array([1, 0])).tolist() == [True, True]


@examples(60)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12), st.just(2)), min_size=1, max_size=14))
def test_no_clip_overlaps_with_more_windows_than_are_set_aside(clips: list[tuple[int, float, float]]) -> None:
    cut = video(*clips)
    every = np.arange(len(clips))
    most = max(int(cut.overlap(np.full(len(clips), clip), every).sum()) for clip in every)
    assert most <= cut.max_overlaps() <= MAX_OVERLAPS


def test_what_is_set_aside_is_limited() -> None:
    assert video(*((0, n / 1000, 1) for n in range(300))).max_overlaps() == MAX_OVERLAPS
    assert video(*((n, 0, 1) for n in range(300))).max_overlaps() == 0
    assert video(*((0, n, 1) for n in range(300))).max_overlaps() == 0


def test_the_windows_of_a_video_are_a_group() -> None:
    cut = video((7, 0, 1), (3, 0, 1), (7, 1, 1), (3, 2, 1), (9, 0, 1))
    assert Video.of(clips_like(cut)).groups().tolist() == [0, 1, 0, 1, 4]


def test_sources_that_are_no_videos_are_refused() -> None:
    with pytest.raises(ValueError, match="pairing is video, but several clips start at the same time"):
        video((0, 0, 1), (1, 0, 1), (0, 0, 1)).groups()


def clips_like(cut: Video) -> Any:
    names = [f"{number}.mp4" for number in cut.sources]
    frames = [round(25 * seconds) for seconds in cut.seconds]
    return SimpleNamespace(sources=names, starts_s=cut.starts, fps=np.full(len(names), 25.0), clip_frames=frames)


def test_clips_are_described_by_source_start_and_length() -> None:
    cut = video((7, 0.5, 1), (3, 0, 2), (7, 1, 1.2))
    found = Video.of(clips_like(cut))
    assert found.sources[0] == found.sources[2] != found.sources[1]
    assert found.starts.tolist() == [0.5, 0, 1]
    assert found.seconds.tolist() == [1, 2, 1.2]

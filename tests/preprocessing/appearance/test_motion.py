"""Which looks are seen doing a single thing."""

import itertools

import numpy as np
import pytest

from preprocessing.appearance.motion import CELLS, motion_map, shows_one_motion
from preprocessing.appearance.pairs import MinedPairs, Video

ARMS, LEGS, BOW = (np.eye(4, dtype=np.int64)[row] * 100 + 1 for row in range(3))


def paired(links: list[tuple[int, int]], videos: list[int]) -> tuple[MinedPairs, Video]:
    """Return clips of the given videos, paired both ways."""
    both = sorted({*links, *((two, one) for one, two in links)})
    pairs = np.array(both, dtype=np.int64).reshape(-1, 2)
    count = len(videos)
    mined = MinedPairs.of(count, pairs, np.zeros(len(pairs)), mutual_share=1, random_distances=np.zeros(0))
    return mined, Video(np.array(videos), np.arange(count, dtype=np.float64))


def test_a_motion_map_holds_the_changes_of_each_cell() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 20, 12, 3), dtype=np.uint8)
    grey = [[[(77 * int(r) + 150 * int(g) + 29 * int(b)) >> 8 for r, g, b in row] for row in one] for one in frames]
    slow = np.zeros((CELLS, CELLS), dtype=np.int64)
    for before, after in itertools.pairwise(grey):
        for y in range(20):
            for x in range(12):
                slow[y * CELLS // 20, x * CELLS // 12] += abs(after[y][x] - before[y][x])
    assert motion_map(frames).tolist() == slow.ravel().tolist()
    assert not motion_map(np.repeat(frames[:1], 4, axis=0)).any()


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_frames_and_frames_with_an_alpha_channel_have_a_map(channels: int) -> None:
    frames = np.zeros((3, 8, 8, channels), dtype=np.uint8)
    frames[1, 0, 0] = 200
    assert motion_map(frames)[0] > 0
    assert motion_map(frames)[1:].sum() == 0


def test_clips_without_a_partner_and_partners_that_move_alike_are_found() -> None:
    # Videos 0 to 2 show one look doing three things; 3 and 4 another look doing one; 5 looks like no other.
    videos = [0, 0, 1, 2, 2, 3, 4, 4, 5]
    maps = np.stack([ARMS, ARMS, LEGS, BOW, BOW, LEGS, LEGS, LEGS + 1, ARMS])
    links = [(0, 2), (1, 2), (2, 3), (0, 4), (5, 6), (5, 7)]
    pairs, video = paired(links, videos)
    assert shows_one_motion(pairs, video, maps).tolist() == [one in (3, 4, 5) for one in videos]


def test_a_pair_of_windows_of_one_video_is_no_partner() -> None:
    videos = [0, 1, 2, 2]
    maps = np.stack([ARMS, LEGS, BOW, BOW])
    pairs, video = paired([(0, 1), (2, 3)], videos)
    assert shows_one_motion(pairs, video, maps).tolist() == [False, False, True, True]


def test_nothing_is_found_where_most_clips_would_be_or_nobody_has_a_partner() -> None:
    maps = np.stack([ARMS, LEGS, BOW, ARMS, LEGS])
    pairs, video = paired([(0, 1)], [0, 1, 2, 3, 4])
    assert not shows_one_motion(pairs, video, maps).any()
    pairs, video = paired([], [0, 1, 2, 3, 4])
    assert not shows_one_motion(pairs, video, maps).any()
    pairs, video = paired([(0, 1)], [0, 1, 2, 3])
    assert shows_one_motion(pairs, video, maps[:4]).tolist() == [False, False, True, True]


def test_how_many_windows_a_video_has_does_not_matter() -> None:
    videos = [0, 1, 2, *[3] * 3]
    maps = np.stack([ARMS, LEGS, BOW, *[ARMS] * 3])
    one, video = paired([(0, 1), (1, 2), (0, 2)], videos)
    many, same = paired([(0, 1), (1, 2), (0, 2), (3, 4), (4, 5), (3, 5)], videos)
    expected = [number == 3 for number in videos]
    assert shows_one_motion(one, video, maps).tolist() == shows_one_motion(many, same, maps).tolist() == expected

"""Near-duplicates share a group; videos that only resemble each other do not."""

import numpy as np
import pytest

from preprocessing.preparing.duplicates import group_videos
from preprocessing.preparing.hashes import VARIANTS, hash_frame
from tests.preprocessing.preparing.scenes import Rgb, background, noisy, waving


def hashes(frames: list[Rgb]) -> list[list[str]]:
    return [found for frame in frames if (found := hash_frame(frame))]


def test_copies_that_are_smaller_noisier_turned_or_mirrored_are_one_group() -> None:
    frames = [background(seed) for seed in range(4)]
    rng = np.random.default_rng(0)
    videos = [
        hashes(frames),
        hashes([frame[::2, ::2] for frame in frames]),
        hashes([noisy(frame, rng, 8.0) for frame in frames]),
        hashes([np.rot90(frame) for frame in frames]),
        hashes([frame[:, ::-1] for frame in frames]),
        hashes(frames[1:3]),  # a piece
        hashes([background(seed) for seed in range(10, 14)]),
    ]
    assert group_videos(videos, 6) == [0, 0, 0, 0, 0, 0, 6]


def test_a_group_is_transitive() -> None:
    first, second, third = ([background(seed) for seed in seeds] for seeds in ((0, 1), (1, 2), (2, 3)))
    assert group_videos(list(map(hashes, (first, second, third))), 6) == [0, 0, 0]


def test_one_frame_in_common_does_not_make_long_videos_duplicates() -> None:
    first, second = ([background(seed) for seed in (99, *range(start, start + 5))] for start in (0, 10))
    assert group_videos([hashes(first), hashes(second)], 6) == [0, 1]


def test_videos_without_any_recognisable_frame_are_groups_of_their_own() -> None:
    assert group_videos([[], hashes(waving(2)), []], 6) == [0, 1, 2]
    assert group_videos([[], []], 6) == [0, 1]


def test_the_first_hash_is_that_of_the_upright_frame() -> None:
    frame = background(0)
    found = hash_frame(frame)
    assert len(found) == VARIANTS == len(set(found))
    assert hash_frame(np.rot90(frame))[0] == found[1]


@pytest.mark.parametrize("distance", [0, 31])
def test_the_distance_decides(distance: int) -> None:
    one, other = hashes([background(0)]), hashes([noisy(background(0), np.random.default_rng(0), 40.0)])
    differing = bin(int(one[0][0], 16) ^ int(other[0][0], 16)).count("1")
    assert 0 < differing < 32
    assert (group_videos([one, other], distance) == [0, 0]) == (distance >= differing)

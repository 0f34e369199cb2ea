"""The regions that move: together with what sways faintly below, without soft shadows beside."""

import numpy as np
import pytest

from preprocessing.preparing.activity import Activity, active_regions, measure_activity

SHAPE = (200, 300)


def maps(*marks: tuple[slice, slice, float, float]) -> Activity:
    """Return activity that is 0.2 but in the given rows and columns, where its two maps have the given values."""
    total, fine = (np.full(SHAPE, 0.2, np.float32) for _ in range(2))
    for rows, columns, change, structure in marks:
        total[rows, columns], fine[rows, columns] = change, structure
    return Activity(total, fine, np.zeros(SHAPE, np.float32))


ARMS = (slice(40, 70), slice(100, 160), 20.0, 10.0)
LEGS = (slice(60, 120), slice(120, 140), 1.0, 1.0)


def test_a_region_grows_down_to_legs_that_sway_faintly_below_arms_that_wave() -> None:
    assert active_regions(maps(ARMS)) == [(100.0, 40.0, 60.0, 30.0)]
    assert active_regions(maps(LEGS, ARMS)) == [(100.0, 40.0, 60.0, 80.0)]


def test_it_grows_no_further_than_a_person_is_tall() -> None:
    ((_, top, width, height),) = active_regions(maps((slice(60, 200), slice(100, 160), 1.0, 1.0), ARMS))
    assert (top, height) == (40.0, pytest.approx(1.9 * width))


def test_a_soft_shadow_is_not_part_of_who_throws_it() -> None:
    shadow = (slice(40, 70), slice(160, 230), 8.0, 0.3)
    assert active_regions(maps(ARMS, shadow)) == active_regions(maps(ARMS))


def test_specks_of_noise_beside_somebody_are_not_part_of_the_region() -> None:
    specks = [(slice(y, y + 1), slice(x, x + 2), 3.0, 3.0) for y in range(42, 70, 6) for x in range(164, 220, 6)]
    assert active_regions(maps(ARMS, *specks)) == active_regions(maps(ARMS))


def test_what_changes_faintly_without_anything_that_changes_clearly_is_no_region() -> None:
    assert active_regions(maps((slice(40, 70), slice(100, 160), 3.0, 3.0))) == []


def test_the_background_is_what_is_seen_most_of_the_time() -> None:
    frames = [np.full(SHAPE, 90, np.uint8) for _ in range(20)]
    for number in range(4):
        frames[5 * number][50:80, 50:80] = 200
    found = measure_activity(frames)
    assert found.background[65, 65] == 90
    assert found.total[65, 65] == pytest.approx(110 * np.sqrt(4 / 20), rel=0.01)
    assert found.motion((55, 55, 20, 20)) == pytest.approx(110 * np.sqrt(4 / 20), rel=0.01)
    assert found.total[150, 150] == 0

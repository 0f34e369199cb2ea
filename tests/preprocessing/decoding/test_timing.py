"""Timestamps, frame rates and windows, compared with slow references that see the whole video at once."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from preprocessing.decoding.timing import DecodedFrame, Frame, Window, WindowMaker, assign_times, resample

RATE = Fraction(25)


def decoded(times: list[Fraction | None], scenes: list[int] | None = None) -> list[DecodedFrame]:
    """Return frames whose only pixel is their number."""
    return [
        DecodedFrame(np.full((1, 1, 1), number, np.uint8), time, (scenes[number] if scenes else 0, 0))
        for number, time in enumerate(times)
    ]


def number_of(frame: Frame) -> int:
    return int(frame.pixels[0, 0, 0])


def steady(count: int, rate: Fraction = RATE, start: Fraction = Fraction(0)) -> list[Fraction | None]:
    return [start + number / rate for number in range(count)]


def test_good_timestamps_are_kept_and_start_at_zero() -> None:
    frames = list(assign_times(decoded(steady(40, start=Fraction(100))), RATE))
    assert [number_of(frame) for frame in frames] == list(range(40))
    assert [frame.time for frame in frames] == steady(40)
    assert {frame.run for frame in frames} == {0}


@pytest.mark.parametrize("seed", range(20))
def test_timestamps_out_of_order_are_sorted_and_frames_stay_in_the_decoders_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shifted = np.argsort(np.arange(60) + rng.uniform(0, 8, 60))  # no frame moves by more than 8 positions
    times = [number / RATE for number in shifted.tolist()]
    frames = list(assign_times(decoded(times), RATE))
    assert [number_of(frame) for frame in frames] == list(range(60))
    assert [frame.time for frame in frames] == [time - min(times) for time in sorted(times)]


def test_missing_and_repeated_timestamps_follow_the_nominal_rate() -> None:
    assert [frame.time for frame in assign_times(decoded([None] * 30), RATE)] == steady(30)
    assert [frame.time for frame in assign_times(decoded([Fraction(7)] * 30), RATE)] == steady(30)
    assert [frame.time for frame in assign_times(decoded([None] * 3), None)] == steady(3)


@pytest.mark.parametrize("jump", [-1000, -3, 11, 100_000, 2**62])
def test_a_jump_in_time_starts_another_run(jump: int) -> None:
    times = [*steady(30), *steady(30, start=Fraction(30, 25) + jump)]
    frames = list(assign_times(decoded(times), RATE))
    assert [number_of(frame) for frame in frames] == list(range(60))
    assert [frame.run for frame in frames] == [0] * 30 + [1] * 30
    for run in (0, 1):
        own = [frame.time for frame in frames if frame.run == run]
        assert all(after > before for before, after in pairwise(own))


def test_a_pause_consistent_with_the_rate_is_not_a_jump() -> None:
    slow = Fraction(1, 60)  # one frame per minute
    assert {frame.run for frame in assign_times(decoded(steady(10, slow)), slow)} == {0}


def test_frames_of_another_size_start_another_run() -> None:
    frames = list(assign_times(decoded(steady(30), [0] * 10 + [1] * 20), RATE))
    assert [frame.run for frame in frames] == [0] * 10 + [1] * 20
    assert [frame.time for frame in frames] == steady(30)


def nearest(frames: list[Frame], fps: Fraction) -> list[int]:
    """Return the nearest frame at every instant of the new rate, by searching all frames."""
    last = frames[-1].time + ((frames[-1].time - frames[-2].time) if len(frames) > 1 else 1 / fps) / 2
    start, found = frames[0].time, []
    while start + len(found) / fps < last:
        instant = start + len(found) / fps
        found.append(number_of(min(frames, key=lambda frame: (abs(frame.time - instant), frame.time))))
    return found


@pytest.mark.parametrize("seed", range(30))
def test_resampling_picks_the_nearest_frame(seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps = rng.integers(1, 30, 40) if seed % 2 else np.full(40, 10)
    times = [Fraction(int(tick), 250) for tick in np.cumsum(steps)]
    frames = list(assign_times(decoded(list(times)), RATE))
    for fps in (Fraction(25), Fraction(50, 3), Fraction(7), Fraction(60), Fraction(30000, 1001)):
        again = list(resample(frames, fps))
        assert [number_of(frame) for frame in again] == nearest(frames, fps)
        assert [frame.time for frame in again] == [number / fps for number in range(len(again))]


def test_resampling_to_the_same_rate_changes_nothing_and_to_half_keeps_every_second_frame() -> None:
    frames = list(assign_times(decoded(steady(31)), RATE))
    assert [number_of(frame) for frame in resample(frames, RATE)] == list(range(31))
    assert [number_of(frame) for frame in resample(frames, RATE / 2)] == list(range(0, 31, 2))
    assert [number_of(frame) for frame in resample(frames[:1], RATE)] == [0]


def test_runs_are_resampled_independently() -> None:
    frames = list(assign_times(decoded([*steady(10), *steady(10, start=Fraction(1000))]), RATE))
    again = list(resample(frames, Fraction(5)))
    assert [(number_of(frame), frame.run) for frame in again] == [(0, 0), (5, 0), (10, 1), (15, 1)]


@pytest.mark.parametrize("length", [2, 3, 8])
@pytest.mark.parametrize("stride", [1, 2, 3, 7, 20])
def test_windows_do_not_span_runs(length: int, stride: int) -> None:
    runs = [0] * 17 + [1] * 2 + [2] * 30
    maker = WindowMaker(length, stride)
    frames = [Frame(np.full((1, 1, 1), number, np.uint8), number / RATE, run) for number, run in enumerate(runs)]
    found = [window for frame in frames if (window := maker.add(frame)) is not None]
    expected = []
    for run in (0, 1, 2):
        own = [number for number, one in enumerate(runs) if one == run]
        expected += [own[start : start + length] for start in range(0, len(own) - length + 1, stride)]
    assert [[number_of(frame) for frame in window.frames] for window in found] == expected
    assert [window.start for window in found] == [window[0] for window in expected]


@pytest.mark.parametrize(
    ("step", "nominal", "expected"),
    [
        (Fraction(1, 25), Fraction(25), 25.0),
        (Fraction(1001, 30000), Fraction(30000, 1001), 30000 / 1001),
        (Fraction(33, 1000), Fraction(30000, 1001), 30000 / 1001),  # times in integer milliseconds
        (Fraction(1, 10), Fraction(25), 10.0),
        (Fraction(1, 10), None, 10.0),
    ],
)
def test_the_rate_of_a_clip_is_the_nominal_rate_if_its_times_agree(
    step: Fraction, nominal: Fraction | None, expected: float
) -> None:
    frames = [Frame(np.zeros((1, 1, 1), np.uint8), number * step, 0) for number in range(9)]
    assert Window(0, frames).rate(nominal) == pytest.approx(expected, rel=1e-12)

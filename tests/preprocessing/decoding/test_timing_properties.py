"""Properties of timestamps, resampling and windows, for any sequence of frames."""

from fractions import Fraction
from itertools import groupby, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.decoding.timing import (
    DEFAULT_RATE,
    LONGEST_GAP_S,
    REORDERED,
    DecodedFrame,
    Frame,
    Window,
    WindowMaker,
    assign_times,
    resample,
)
from tests.property_settings import examples

RATES = st.sampled_from([Fraction(25), Fraction(30000, 1001), Fraction(1), Fraction(120), Fraction(7, 3)])


def numbered(number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return a frame whose two pixels hold its number."""
    return np.array([number // 256, number % 256], dtype=np.uint8).reshape(1, 2, 1)


def number_of(frame: Frame) -> int:
    return int(frame.pixels[0, 0, 0]) * 256 + int(frame.pixels[0, 1, 0])


def decoded(times: list[Fraction | None], scenes: list[int] | None = None) -> list[DecodedFrame]:
    return [
        DecodedFrame(numbered(number), time, (scenes[number] if scenes else 0, 0)) for number, time in enumerate(times)
    ]


def milliseconds(low: int, high: int) -> st.SearchStrategy[Fraction]:
    return st.integers(low, high).map(lambda value: Fraction(value, 1000))


def longest_gap(rate: Fraction | None) -> Fraction:
    return max(Fraction(LONGEST_GAP_S), 20 / (rate or DEFAULT_RATE))


@st.composite
def timed(draw: st.DrawFn, max_size: int = 40) -> list[Frame]:
    """Draw frames as `assign_times` gives them: runs of rising times, each run anywhere in time."""
    frames: list[Frame] = []
    for run in range(draw(st.integers(1, 4))):
        time = Fraction(0) if not run else draw(milliseconds(-5000, 50_000))
        for step in draw(st.lists(milliseconds(1, 400), min_size=1, max_size=max_size // 4)):
            frames.append(Frame(numbered(len(frames)), time, run))
            time += step
    return frames


@examples(50)
@given(st.data(), st.none() | RATES)
def test_any_timestamps_give_every_frame_once_at_rising_times_without_long_gaps(
    data: st.DataObject, rate: Fraction | None
) -> None:
    times = data.draw(st.lists(st.none() | milliseconds(-2000, 60_000), max_size=60))
    scenes = sorted(data.draw(st.lists(st.integers(0, 2), min_size=len(times), max_size=len(times))))
    frames = list(assign_times(decoded(times, scenes), rate))
    assert [number_of(frame) for frame in frames] == list(range(len(times)))
    for before, after in pairwise(frames):
        if after.run == before.run:
            assert 0 < after.time - before.time <= longest_gap(rate)
            assert scenes[number_of(before)] == scenes[number_of(after)]
        else:
            assert after.run > before.run


@examples(50)
@given(st.data(), RATES, milliseconds(-(10**9), 10**9))
def test_timestamps_that_are_out_of_order_by_a_few_frames_are_sorted_and_start_at_zero(
    data: st.DataObject, rate: Fraction, start: Fraction
) -> None:
    steps = data.draw(st.lists(milliseconds(1, 10_000), min_size=30, max_size=60))  # longer than the delays
    rising = [start + sum(steps[:count], Fraction(0)) for count in range(len(steps))]
    # No time comes more than REORDERED frames later than in sorted order.
    waiting, shuffled = list(range(len(rising))), []
    for position in range(len(rising)):
        overdue = waiting[0] + REORDERED <= position
        shuffled.append(waiting.pop(0 if overdue else data.draw(st.integers(0, min(REORDERED, len(waiting) - 1)))))
    frames = list(assign_times(decoded([rising[index] for index in shuffled]), rate))
    assert [frame.time for frame in frames] == [time - start for time in rising]
    assert {frame.run for frame in frames} == {0}


@examples(40)
@given(st.lists(milliseconds(1, 5000), min_size=1, max_size=40), st.data(), RATES)
def test_a_pause_starts_another_run_exactly_if_it_is_long(
    steps: list[Fraction], data: st.DataObject, rate: Fraction
) -> None:
    gap = longest_gap(rate)
    pause = data.draw(milliseconds(1, 60_000) | st.sampled_from([gap, gap + Fraction(1, 1000)]))
    times = [sum(steps[:count], Fraction(0)) for count in range(len(steps))]
    times += [times[-1] + pause + time for time in times]
    frames = list(assign_times(decoded(list(times)), rate))
    assert [frame.time for frame in frames] == times
    assert [frame.run for frame in frames] == [0] * len(steps) + [int(pause > gap)] * len(steps)


def resampled(frames: list[Frame], fps: Fraction) -> list[tuple[int, Fraction, int]]:
    """Return (number, time, run) by searching, at every instant of each run, all frames of the run."""
    found = []
    for run, members in groupby(frames, lambda frame: frame.run):
        own = list(members)
        spacing = own[-1].time - own[-2].time if own[1:] else 1 / fps
        end, instant = own[-1].time + spacing / 2, own[0].time
        while instant < end:
            nearest = min(own, key=lambda frame: (abs(frame.time - instant), frame.time))
            found.append((number_of(nearest), instant, run))
            instant += 1 / fps
    return found


@examples(40)
@given(timed(), RATES | st.fractions(1, 60, max_denominator=1000))
def test_resampling_takes_the_nearest_frame_of_the_run_at_every_instant(frames: list[Frame], fps: Fraction) -> None:
    again = [(number_of(frame), frame.time, frame.run) for frame in resample(frames, fps)]
    assert again == resampled(frames, fps)


def cut(frames: list[Frame], length: int, stride: int) -> list[list[int]]:
    """Return the numbers of the frames of each window, by slicing each run."""
    windows = []
    for _, members in groupby(frames, lambda frame: frame.run):
        own = [number_of(frame) for frame in members]
        windows += [own[start : start + length] for start in range(0, len(own) - length + 1, stride)]
    return windows


def windows_of(frames: list[Frame], length: int, stride: int) -> list[Window]:
    maker = WindowMaker(length, stride)
    return [window for frame in frames if (window := maker.add(frame)) is not None]


@examples(50)
@given(timed(max_size=100), st.integers(1, 12), st.integers(1, 20))
def test_windows_are_slices_of_runs(frames: list[Frame], length: int, stride: int) -> None:
    windows = windows_of(frames, length, stride)
    found = [[number_of(frame) for frame in window.frames] for window in windows]
    assert found == cut(frames, length, stride)
    for window in windows:
        assert len(window.frames) == length
        assert number_of(window.frames[0]) == window.start
        assert window.start_s == float(window.frames[0].time)


@examples(40)
@given(timed(max_size=100), st.integers(1, 12))
def test_with_the_stride_of_its_length_windows_leave_no_gap_and_do_not_overlap(
    frames: list[Frame], length: int
) -> None:
    used = [number_of(frame) for window in windows_of(frames, length, length) for frame in window.frames]
    expected = []
    for _, members in groupby(frames, lambda frame: frame.run):
        own = [number_of(frame) for frame in members]
        expected += own[: len(own) - len(own) % length]
    assert used == expected


@pytest.mark.slow
@examples(50)
@given(timed(), st.none() | RATES)
def test_the_rate_of_a_window_is_measured_and_rounded_to_a_nominal_rate_within_5_percent(
    frames: list[Frame], nominal: Fraction | None
) -> None:
    for window in windows_of(frames, 3, 1):
        measured = 2 / (window.frames[-1].time - window.frames[0].time)
        rate = window.rate(nominal)
        near = nominal is not None and abs(measured - nominal) <= nominal / 20
        assert rate == float(nominal if near and nominal is not None else measured)
        assert 0 < rate < float("inf")

"""Progress of a long command: phases, rates and estimates, one log line per interval."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from rich.cells import cell_len

from cluster.cli.progress import LOG_PREFIX, ProgressDisplay, format_duration


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def wide_log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("COLUMNS", "200")


@contextmanager
def displayed(clock: Clock, monkeypatch: pytest.MonkeyPatch, phases: int | None = None) -> Iterator[ProgressDisplay]:
    """Yield a display that logs only when it is called, so that each line is a function of the clock."""
    monkeypatch.setattr(ProgressDisplay, "_log_regularly", lambda self: None)
    with ProgressDisplay(phases, clock=clock) as progress:
        yield progress


# Durations and lines


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (0.4, "0 s"),
        (42.4, "42 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (18_420, "5 h 07 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_a_duration_has_one_format(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_a_line_names_phase_progress_rate_and_time_left(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    with displayed(clock, monkeypatch, phases=5) as progress:
        progress.start("listing")
        progress.start("encoding test clips", 1000, unit="clips")
        assert progress.line() == "phase 2 of 5: encoding test clips: 0/1,000 (0%), 0 s elapsed"
        clock.advance(3)
        progress.update(240)
        assert progress.line() == "phase 2 of 5: encoding test clips: 240/1,000 (24%), 80 clips/s, 10 s left"
        progress.advance(60)
        progress.update(300, note="loss 0.5")
        assert progress.line() == "phase 2 of 5: encoding test clips: 300/1,000 (30%), 100 clips/s, 7 s left, loss 0.5"


def test_without_a_total_a_line_shows_the_time_elapsed(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    with displayed(clock, monkeypatch) as progress:
        progress.start("reading", unit="clips")
        clock.advance(100)
        assert progress.line() == "phase 1: reading: 1 min 40 s elapsed"
        progress.advance(50)
        assert progress.line() == "phase 1: reading: 50 clips, 0.5 clips/s, 1 min 40 s elapsed"


def test_a_single_phase_has_no_number(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    with displayed(clock, monkeypatch, phases=1) as progress:
        progress.start("reading")
        assert progress.line() == "reading: 0 s elapsed"
        progress.start("reading again")  # more phases than expected
        assert progress.line() == "phase 2 of 2: reading again: 0 s elapsed"


def test_the_number_of_phases_can_change(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    with displayed(clock, monkeypatch, phases=4) as progress:
        progress.start("listing")
        progress.expect(2)
        assert progress.line().startswith("phase 1 of 2: ")


# Estimates


def test_a_phase_that_restarts_has_its_own_clock_and_estimate(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    with displayed(clock, monkeypatch, phases=2) as progress:
        progress.start("encoding", 100, unit="clips")
        clock.advance(1000)
        progress.update(100)
        progress.start("encoding", 100, unit="clips")  # the same label again
        clock.advance(2)
        progress.update(10)
        assert progress.line() == "phase 2 of 2: encoding: 10/100 (10%), 5 clips/s, 18 s left"


def test_a_phase_repeated_after_a_failure_keeps_its_number(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    with displayed(clock, monkeypatch, phases=2) as progress:
        progress.start("training", 100, unit="steps")
        clock.advance(50)
        progress.update(90)
        progress.start("training", 100, unit="steps", done=50, number=1)
        clock.advance(10)
        progress.update(60)
        assert progress.line() == "phase 1 of 2: training: 60/100 (60%), 1 steps/s, 40 s left"


def test_units_of_an_earlier_process_are_not_in_the_rate(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    with displayed(clock, monkeypatch, phases=1) as progress:
        progress.start("training", 1000, unit="steps", done=900)
        assert progress.line() == "training: 900/1,000 (90%), 0 s elapsed"
        clock.advance(10)
        progress.update(920)
        assert progress.line() == "training: 920/1,000 (92%), 2 steps/s, 40 s left"


@pytest.mark.parametrize("total", [3, 1000, 10**7])
def test_no_time_left_and_all_done_are_claimed_only_at_the_end(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, total: int
) -> None:
    with displayed(clock, monkeypatch, phases=1) as progress:
        progress.start("encoding", total)
        for left in range(min(total, 50), 0, -1):
            clock.advance(1e-4)
            progress.update(total - left)
            assert " 0 s left" not in progress.line()
            assert "100%" not in progress.line()
        progress.update(total)
        assert "(100%)" in progress.line()
        assert "left" not in progress.line()


def test_progress_that_goes_backwards_gives_no_estimate(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    with displayed(clock, monkeypatch, phases=1) as progress:
        progress.start("training", 100, unit="steps", done=50)
        clock.advance(10)
        progress.update(40)
        assert progress.line() == "training: 40/100 (40%), 10 s elapsed"


# Log lines


def test_a_line_is_logged_once_per_interval_and_at_the_end_of_a_long_phase(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with displayed(clock, monkeypatch, phases=2) as progress:
        progress.start("short", 10)
        clock.advance(2)
        progress.start("long", 100)
        for done in range(0, 100, 4):
            progress.update(done)
            clock.advance(1)
        progress.update(100)
    assert caplog.messages == [
        "phase 2 of 2: long: 32/100 (32%), 17 s left",
        "phase 2 of 2: long: 72/100 (72%), 7 s left",
        "phase 2 of 2: long: done in 25 s",
    ]


def test_nothing_is_logged_after_the_end(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with displayed(clock, monkeypatch, phases=1) as progress:
        progress.start("encoding", 10)
    clock.advance(100)
    progress.update(5)
    progress.advance()
    assert caplog.messages == []


def test_a_failed_phase_is_not_reported_as_done(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        with displayed(clock, monkeypatch) as progress:
            progress.start("encoding")
            clock.advance(100)
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    assert caplog.messages == []


def test_a_silent_phase_is_logged_every_interval(caplog: pytest.LogCaptureFixture) -> None:
    with ProgressDisplay(1, interval_s=0.05) as progress:
        progress.start("waiting")
        deadline = time.monotonic() + 30
        while len(caplog.messages) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(caplog.messages) >= 3
        assert set(caplog.messages) == {"waiting: 0 s elapsed"}
    ended = len(caplog.messages)
    assert not any(thread.name == "progress" for thread in threading.enumerate())
    time.sleep(0.2)
    assert len(caplog.messages) == ended


def test_threads_can_advance_together(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    with displayed(clock, monkeypatch, phases=1) as progress:
        progress.start("reading", 4000)
        threads = [threading.Thread(target=lambda: [progress.advance() for _ in range(1000)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert progress.line().startswith("reading: 4,000/4,000 (100%)")


@pytest.mark.parametrize("columns", [20, 40, 80])
@pytest.mark.parametrize("phase", ["a name much longer than any terminal is wide " * 5, "名前" * 80, "two\nlines"])
def test_a_log_line_is_at_most_as_wide_as_the_terminal(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, columns: int, phase: str
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with displayed(clock, monkeypatch, phases=3) as progress:
        progress.start(phase, 10)
        clock.advance(11)
        progress.update(5, note="a note " * 20)
    assert len(caplog.messages) == 2
    for message in caplog.messages:
        assert cell_len(message) <= columns - LOG_PREFIX
        assert "\n" not in message

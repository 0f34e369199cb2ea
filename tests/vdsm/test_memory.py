"""The allocator of glibc is set once, and its absence is no error."""

import ctypes
from types import SimpleNamespace

import pytest

from vdsm.memory import keep_freed_memory


@pytest.mark.parametrize("answers", [(1, 1), (0, 1), (1, 0)])
def test_both_thresholds_are_raised_and_a_refusal_is_reported(
    monkeypatch: pytest.MonkeyPatch, answers: tuple[int, int]
) -> None:
    calls: list[tuple[int, int]] = []

    def mallopt(parameter: int, value: int) -> int:
        calls.append((parameter, value))
        return answers[len(calls) - 1]

    def library(name: str | None) -> SimpleNamespace:
        assert name is None
        return SimpleNamespace(mallopt=mallopt)

    monkeypatch.setattr(ctypes, "CDLL", library)
    assert keep_freed_memory() is all(answers)
    # M_MMAP_THRESHOLD is -3 and M_TRIM_THRESHOLD -1 in malloc.h; both are ints in C.
    assert calls == [(-3, 2**30), (-1, 2**31 - 1)][: 1 + answers[0]]


@pytest.mark.parametrize("error", [OSError, AttributeError, TypeError])
def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def library(name: str | None) -> SimpleNamespace:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", library)
    assert keep_freed_memory() is False

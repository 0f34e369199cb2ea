"""A test does not change what the next one finds."""

import os

import pytest

from tests.leftovers import same_environment

CHANGED, SET, REMOVED = "VDSM_TEST_CHANGED", "VDSM_TEST_SET", "VDSM_TEST_REMOVED"


def test_variables_that_were_set_changed_or_removed_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CHANGED, "before")
    monkeypatch.setenv(REMOVED, "before")
    with same_environment():
        os.environ[CHANGED] = "after"
        os.environ.setdefault(SET, "after")
        del os.environ[REMOVED]
    assert [os.environ.get(name) for name in (CHANGED, SET, REMOVED)] == ["before", None, "before"]


@pytest.mark.parametrize("test", ["this one", "the other one"])
def test_each_test_runs_in_it(test: str) -> None:
    assert SET not in os.environ
    os.environ[SET] = test

"""What a test leaves behind in its process for those that come after it, in whatever order that is."""

import contextlib
import os
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def undisturbed() -> Iterator[None]:
    """Draw the same random numbers of torch in a test, whatever ran before, and give the environment back.

    pytest-randomly seeds the generators of Python and NumPy. `monkeypatch` undoes its changes before this fixture ends.
    """
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "manual_seed"):
        torch.manual_seed(0)
    with same_environment():
        yield


@contextlib.contextmanager
def same_environment() -> Iterator[None]:
    """Give the environment back as it was: a command sets defaults in it for the libraries that its process loads.

    `monkeypatch` does not do that: `delenv` of a variable that is not set records nothing to undo. Ray reads its
    variables once in a process, so they stay as they were at first.
    """
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in [name for name in os.environ if name not in before and not name.startswith("RAY_")]:
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Fail a test that leaves torch with another number of threads, which would slow all others down."""
    torch = sys.modules.get("torch")
    if torch is not None and "OMP_NUM_THREADS" in os.environ and hasattr(torch, "get_num_threads"):
        threads = torch.get_num_threads()
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        assert threads == torch.get_num_threads(), f"the test left torch with {threads} threads"

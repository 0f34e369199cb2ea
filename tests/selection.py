"""Which tests a command runs, in which order and by which worker; and what it left out."""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

MARKED_BY_FIXTURE = {"local_ray": "ray", "s3_server": "s3", "chromium": "browser", "trials": "repeated"}
"""Fixture -> marker of every test that uses it, directly or not."""
LEFT_OUT = {
    "campaign": "that take five minutes each; `make campaign` runs them",
    "long": "that take long or vary one that ran; `make test-long` runs them",
    "ray": "that start Ray; `make test` runs them",
    "s3": "that start an S3 server; `make test` runs them",
    "browser": "that start a browser; `make test` runs them",
    "slow": "that take seconds each; `make test` runs them",
}
"""Marker -> description of the tests that a command left out. A test counts for the first of its markers."""

_left_out = pytest.StashKey[Counter[str]]()


def mark_by_fixture(items: list[pytest.Item]) -> None:
    """Mark each test by the fixtures that it uses."""
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker("ray")
        for fixture in MARKED_BY_FIXTURE.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(MARKED_BY_FIXTURE[fixture])


def arrange(items: list[pytest.Item]) -> None:
    """Start the longest files first: those that share a Ray, those of slow tests, of which some start Ray, the others.

    Otherwise the order stays the random one.
    """
    ray = {item.path for item in items if item.get_closest_marker("ray")}
    quick = {item.path for item in items if not item.get_closest_marker("slow")}
    sharing = files_with_local_ray(items)
    items.sort(key=lambda item: (item.path not in sharing, item.path in quick, item.path not in ray))


def files_with_local_ray(items: Sequence[pytest.Item]) -> set[Path]:
    """Return the files with tests that use the Ray that the tests of a process share, directly or not."""
    return {item.path for item in items if "local_ray" in getattr(item, "fixturenames", ())}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Give all files that may use the shared Ray to one worker, so that a single one starts, and likewise those of the
    shared studio; other files to any."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class OneRay(LoadFileScheduling):
        """Whole files, and those of the shared Ray or studio together."""

        def _split_scope(self, nodeid: str) -> str:
            file = str(super()._split_scope(nodeid))
            if names_studio(config.rootpath / file):
                return "shared studio"
            return "shared Ray" if names_local_ray(config.rootpath / file) else file

    return OneRay(config, log)


@lru_cache
def names_local_ray(file: Path) -> bool:
    """Return whether the file, or the fixtures of its folder, name `local_ray`."""
    texts = [path.read_text() for path in (file, file.parent / "conftest.py") if path.is_file()]
    return any("local_ray" in text for text in texts)


@lru_cache
def names_studio(file: Path) -> bool:
    """Return whether the file names the studio that all tests of a process share."""
    return file.is_file() and "studio: RunningStudio" in file.read_text()


def count_left_out(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """Count tests that will not run, by the marker that left them out."""
    counts = config.stash.setdefault(_left_out, Counter())
    for item in items:
        marker = next((name for name in LEFT_OUT if item.get_closest_marker(name)), None)
        if marker is not None:
            counts[marker] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the counts from a worker to the process that prints the summary."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["left_out"] = dict(session.config.stash.get(_left_out, {}))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take the counts of a worker; each has collected all tests."""
    found = getattr(node, "workeroutput", {}).get("left_out", {})
    node.config.stash[_left_out] = Counter(found)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print what was left out."""
    for name, count in config.stash.get(_left_out, Counter[str]()).items():
        terminalreporter.write_line(f"left out: {count} test{'s' if count > 1 else ''} {LEFT_OUT[name]}")

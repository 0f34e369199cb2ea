"""One started `vdsm studio` for all tests of a process, and a browser that looks at it."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.chromium import Chromium
from tests.selection import names_studio


@dataclass(frozen=True)
class RunningStudio:
    """A studio in a process of its own."""

    url: str
    """With a slash at the end."""
    pid: int

    def ask(self, path: str, content: Any = None, **headers: str) -> tuple[int, Any]:
        """Return the status and the JSON of an answer; `content` is posted as JSON, or as it is."""
        data = content if isinstance(content, bytes | None) else json.dumps(content).encode()
        request = urllib.request.Request(self.url + path, data=data)
        for name, value in ({"content-type": "application/json"} | headers).items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())


@contextlib.contextmanager
def started(root: Path, *options: str, variables: Mapping[str, str] | None = None) -> Iterator[RunningStudio]:
    """Run `vdsm studio` for the block, with further environment variables."""
    from pipeline.dashboards import free_ports

    port = next(free_ports(28450))
    command = [sys.executable, str(root / "pipeline" / "studio.py"), "--port", str(port), *options]
    environment = {**os.environ, **(variables or {})}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip().partition("?")[0]
            assert url.startswith("http://"), url
            yield RunningStudio(url, process.pid)
        finally:
            process.terminate()
            assert process.wait(60) == 0


@pytest.fixture(scope="session")
def runs_folder(first_report: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an evaluated run, whose name is hostile, a copy of it, and a training without a report."""
    folder, name = tmp_path_factory.mktemp("runs"), first_report.parent.name
    for run in (name, "second"):
        shutil.copytree(first_report.parent.parent / "runs" / name, folder / run)
        shutil.copytree(first_report, folder / run / "report")
    shutil.copytree(first_report.parent.parent / "runs" / name, folder / "training")
    return folder


_running = pytest.StashKey[contextlib.ExitStack]()


@pytest.fixture(scope="session")
def studio(
    request: pytest.FixtureRequest, root: Path, figures_dataset: Path, runs_folder: Path
) -> Iterator[RunningStudio]:
    """Return a studio with the built-in model, a dataset and runs. Do not kill a part of it."""
    options = ["--max-upload-mb", "2", "--max-upload-s", "2", "--max-video-s", "10", "--max-pixels", "1000000"]
    with contextlib.ExitStack() as running:
        request.config.stash[_running] = running
        yield running.enter_context(started(root, "--data", str(figures_dataset), "--runs", str(runs_folder), *options))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Stop the studio after its last test: its idle processes take a fifth of a core."""
    yield
    running = item.config.stash.get(_running, None)
    is_used = nextitem is not None and names_studio(nextitem.path)
    # A worker of pytest-xdist gets all files of the studio one after the other; see `tests/selection.py`.
    if running is not None and not is_used and hasattr(item.config, "workerinput"):
        running.close()


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Chromium]:
    with Chromium(chromium) as opened:
        yield opened

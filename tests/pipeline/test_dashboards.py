"""`vdsm dashboards`, run in a process of its own."""

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import optuna
import pytest

from pipeline.dashboards import HOST, free_ports
from pipeline.tuning.study import storage_of
from tests.e2e.training_runs import descendants, wait


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Return a folder with a sweep of two trials, one of them still running."""
    study = optuna.create_study(storage=storage_of(str(tmp_path / "search" / "study.journal")), study_name="search")
    trial = study.ask()
    study.tell(trial, trial.suggest_float("rate", 0, 1))
    study.ask()
    return tmp_path


def listeners(port: int) -> set[str]:
    """Return the addresses, in the kernel's notation, on which a process listens at `port`."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            address, local_port = line.split()[1].split(":")
            if int(local_port, 16) == port and line.split()[3] == "0A":
                found.add(address)
    return found


def read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as response:
        return bytes(response.read())


@pytest.mark.slow
def test_dashboards_listen_on_loopback_only_and_leave_no_process(root: Path, runs: Path) -> None:
    first = next(free_ports(26006))
    command = [sys.executable, str(root / "pipeline" / "dashboards.py"), "--out", str(runs), "--port", str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=runs) as process:
        try:
            assert process.stdout is not None
            printed = [process.stdout.readline() for _ in range(3)]
            assert printed[2].startswith("Ray: ")
            addresses = dict(line.strip().split(": ", 1) for line in printed[:2])
            assert list(addresses) == ["TensorBoard", "optuna-dashboard of search"]
            assert b"<title>TensorBoard" in read(addresses["TensorBoard"])
            (study,) = json.loads(read(addresses["optuna-dashboard of search"] + "/api/studies"))["study_summaries"]
            assert study["study_name"] == "search"
            for address in addresses.values():
                assert address.startswith(f"http://{HOST}:")
                assert listeners(int(address.rpartition(":")[2])) == {"0100007F"}
            started = descendants(process.pid)
            assert len(started) >= 2
            process.terminate()  # equivalent to Ctrl-C
            assert process.wait(60) == 0
            wait(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), "the dashboards end", 60)
        finally:
            process.terminate()


@pytest.mark.slow
@pytest.mark.parametrize("number", [pytest.param(signal.SIGHUP, marks=pytest.mark.long), signal.SIGKILL])
def test_no_process_is_left_however_it_ends(root: Path, tmp_path: Path, number: signal.Signals) -> None:
    first = next(free_ports(27006))
    command = [sys.executable, str(root / "pipeline" / "dashboards.py"), "--out", str(tmp_path), "--port", str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("TensorBoard: ")
        started = descendants(process.pid)
        assert started
        process.send_signal(number)
        process.wait(60)
        wait(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), "the dashboards end", 60)
        if number == signal.SIGHUP:
            assert process.returncode == 0
            _, errors = process.communicate()
            assert errors.endswith("the dashboards have ended\n")

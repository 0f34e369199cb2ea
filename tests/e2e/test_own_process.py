"""A training in a process of its own: who can reach it, and what it writes once another took over its run."""

import ipaddress
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import api as storage
from pipeline.ray_train.network import STORE_PORTS
from pipeline.runs.lock import _claim
from tests.e2e.training_runs import started, wait
from tests.listeners import listeners, session

pytestmark = pytest.mark.slow

ASK = "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1]).internal_kv_keys(b'', None, 30)"
"""A request to the GCS, which `ray.init` would repeat for minutes."""
FILES = ("stage1.pt", "stage2.pt", "events.jsonl", "metrics.jsonl")


@pytest.mark.parametrize(
    "place", [pytest.param("folder", marks=pytest.mark.long), pytest.param("s3", marks=pytest.mark.s3)]
)
def test_only_its_owner_reaches_a_local_training_and_it_writes_nothing_after_another_took_over_the_run(
    place: str, root: Path, request: pytest.FixtureRequest, train_args: Any, tmp_path: Path
) -> None:
    out = str(tmp_path / "runs") if place == "folder" else f"{request.getfixturevalue('s3_bucket')}/runs"
    run, home = f"{out}/run", tmp_path / "home"
    home.mkdir()  # without a token of Ray
    if place == "folder":
        Path(run).mkdir(parents=True)
    args = [*train_args(out, "run"), "--training.stage1.steps", "100000"]
    with started(root, args, tmp_path, HOME=str(home)) as process:
        wait(lambda: has_checkpoint(run), "it has saved a checkpoint", process=process)
        check_ports(process.pid, home)
        os.kill(process.pid, signal.SIGSTOP)
        storage.write_bytes(f"{run}/.lock", _claim())
        for name in FILES:
            storage.write_bytes(f"{run}/{name}", b"of another process")
        os.kill(process.pid, signal.SIGCONT)
        assert process.wait(120) == 2
    output = (tmp_path / "output.txt").read_text()
    assert f"error: {run}: another process took over this run" in output.splitlines()[-1]
    assert "Traceback" not in output
    assert {storage.read_bytes(f"{run}/{name}") for name in FILES} == {b"of another process"}


def has_checkpoint(run: str) -> bool:
    return any(name.startswith("checkpoints/stage") for name in storage.list_files(run))


def check_ports(driver: int, home: Path) -> None:
    """Assert that a training listens on loopback alone, and that its Ray answers nobody without its token."""
    found = listeners(session(driver))
    assert {one.port for one in found} & set(STORE_PORTS)  # torch's store
    assert len(found) > 8  # the GCS, the raylet, the agents, the workers
    assert [one for one in found if not ipaddress.ip_address(one.address).is_loopback] == []
    gcs = next(one.port for one in found if "gcs_server" in one.command)
    for token in ("", "0" * 64):
        refused = ask(home, gcs, token)
        assert refused.returncode != 0
        assert "AuthenticationError" in refused.stderr, refused.stderr[-2000:]


def ask(home: Path, port: int, token: str) -> "subprocess.CompletedProcess[str]":
    """Send a request to a local Ray as another user of this machine would, without its token."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {"HOME": str(home)}
    own |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
    args = [sys.executable, "-c", ASK, f"127.0.0.1:{port}"]
    return subprocess.run(args, env=own, cwd=home, capture_output=True, text=True, timeout=120, check=False)

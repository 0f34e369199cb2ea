"""A training on this machine alone: what other machines, and other users of this one, can reach of it."""

import ipaddress
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.ray_train.network import STORE_PORTS
from tests.e2e.training_runs import LONGER, events, started, wait
from tests.listeners import listeners, session

pytestmark = pytest.mark.slow

ASK = "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1]).internal_kv_keys(b'', None, 30)"
"""A request to the GCS, which `ray.init` would repeat for minutes."""


def test_a_local_training_listens_on_loopback_only_and_requires_its_token(
    root: Path, train_args: Any, tmp_path: Path
) -> None:
    home = tmp_path / "home"  # without a token of Ray
    home.mkdir()
    args = [*train_args(tmp_path, "run"), *LONGER, "--training.stage1.steps=100000"]
    with started(root, args, tmp_path, HOME=str(home)) as process:
        wait(lambda: "start" in events(tmp_path / "run"), "the workers have started", process=process)
        found = listeners(session(process.pid))
        gcs = next(one.port for one in found if "gcs_server" in one.command)
        refused = [ask(home, gcs, token) for token in ("", "0" * 64)]
    assert {one.port for one in found} & set(STORE_PORTS)  # torch's store
    assert len(found) > 8  # the GCS, the raylet, the agents, the workers
    assert [one for one in found if not ipaddress.ip_address(one.address).is_loopback] == []
    for done in refused:
        assert done.returncode != 0
        assert "AuthenticationError" in done.stderr, done.stderr[-2000:]


def ask(home: Path, port: int, token: str) -> "subprocess.CompletedProcess[str]":
    """Send a request to a local Ray as another user of this machine would, without its token."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {"HOME": str(home)}
    own |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
    args = [sys.executable, "-c", ASK, f"127.0.0.1:{port}"]
    return subprocess.run(args, env=own, cwd=home, capture_output=True, text=True, timeout=120, check=False)

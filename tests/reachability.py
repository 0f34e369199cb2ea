"""Who can reach the ports of a local Ray, and of the training in it."""

import ipaddress
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.listeners import Listener, listeners

ASK = "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1]).internal_kv_keys(b'', None, 30)"
"""A request to the GCS, which `ray.init` would repeat for minutes."""


def listeners_on_loopback(pids: Iterable[int]) -> list[Listener]:
    """Return the ports on which some processes listen, all of them on loopback."""
    found = listeners(pids)
    assert [one for one in found if not ipaddress.ip_address(one.address).is_loopback] == []
    return found


def assert_only_its_owner_reaches(pids: Iterable[int], home: Path) -> None:
    """Assert that a local Ray listens on loopback alone, and that it answers nobody without its token.

    Args:
        pids: its processes.
        home: a home folder in which Ray stores no token.
    """
    found = listeners_on_loopback(pids)
    gcs = next(one.port for one in found if "gcs_server" in one.command)
    assert any("raylet/raylet" in one.command for one in found)
    for token in ("", "0" * 64):
        refused = _ask(home, gcs, token)
        assert refused.returncode != 0
        assert "AuthenticationError" in refused.stderr, refused.stderr[-2000:]


def _ask(home: Path, port: int, token: str) -> "subprocess.CompletedProcess[str]":
    """Send a request to a local Ray as another user of this machine would, without its token."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {"HOME": str(home)}
    own |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
    args = [sys.executable, "-c", ASK, f"127.0.0.1:{port}"]
    return subprocess.run(args, env=own, cwd=home, capture_output=True, text=True, timeout=120, check=False)

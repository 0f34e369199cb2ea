"""An S3 server that is killed during a read or a write, and restarts: only time is lost."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.storage import api as storage
from tests.cluster.storage.fault_proxy import Fault, fault_proxy

pytestmark = pytest.mark.s3


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def mortal_server(tmp_path: Path) -> Iterator[Callable[[str], "Mortal"]]:
    servers: list[Mortal] = []

    def make(name: str) -> "Mortal":
        servers.append(Mortal(tmp_path / name))
        return servers[-1]

    yield make
    for server in servers:
        server.kill()


class Mortal:
    """An S3 server in a process of its own, which a test kills and restarts with the same ports and objects."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.command = folder, [""]
        self.start()

    def start(self) -> None:
        """Start the server: the first time through `serve`, which chooses ports, later with the same command line."""
        if self.command == [""]:
            code = (
                "import os, subprocess, sys, time\n"
                "from pathlib import Path\n"
                "from cluster.development import s3_server\n"
                "with s3_server.serve(Path(sys.argv[1]), access_key='k', secret_key='s') as server:\n"
                "    print(server.endpoint, flush=True)\n"
                "    time.sleep(600)\n"
            )
            root = Path(__file__).resolve().parents[3]
            args = [sys.executable, "-c", code, str(self.folder)]
            self.host = subprocess.Popen(args, cwd=root, stdout=subprocess.PIPE, text=True)
            assert self.host.stdout is not None
            self.endpoint = self.host.stdout.readline().strip()
            assert self.endpoint
            children = Path(f"/proc/{self.host.pid}/task/{self.host.pid}/children").read_text().split()
            self.pid = int(children[0])
            self.command = Path(f"/proc/{self.pid}/cmdline").read_text().split("\0")[:-1]
            return
        self.process = subprocess.Popen(
            self.command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.pid = self.process.pid

    def stop(self) -> None:
        """Kill the server, as when its machine fails."""
        os.kill(self.pid, signal.SIGKILL)
        if hasattr(self, "process"):
            self.process.wait()

    def kill(self) -> None:
        self.host.kill()
        self.host.wait()
        for process in [self.process] if hasattr(self, "process") else []:
            process.kill()
            process.wait()


def test_a_server_killed_and_restarted_costs_nothing_but_time(
    mortal_server: Callable[[str], Mortal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    server = mortal_server("s3")
    own = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**own, "AWS_ENDPOINT_URL": server.endpoint}.items():
        monkeypatch.setenv(name, value)
    boto3.session.Session().client("s3").create_bucket(Bucket="store")
    data = os.urandom(24_000_000)
    storage.write_bytes("s3://store/read", data)
    storage.write_bytes("s3://store/written", b"old")
    (tmp_path / "new").write_bytes(data[::-1])

    def killed_during(work: Callable[[], None], method: str) -> int:
        """Kill the server during `work` and restart it two seconds later; return the number of requests."""
        dead = threading.Event()

        def kill(used: str, path: str, n: int) -> Fault | None:
            return Fault(midway=lambda: (server.stop(), dead.set())) if (used, n) == (method, 0) else None

        with fault_proxy(server.endpoint, kill) as proxy:
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
            revive = threading.Thread(target=lambda: (dead.wait(30), time.sleep(2), server.start()))
            revive.start()
            storage.retry_while_unreachable(work, 60)
            revive.join()
            requests = proxy.count(method)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        return requests

    assert killed_during(lambda: storage.download("s3://store/read", tmp_path / "got"), "GET") >= 2
    assert sha((tmp_path / "got").read_bytes()) == sha(data)
    parts = 3  # of 8 MiB
    assert killed_during(lambda: storage.upload(tmp_path / "new", "s3://store/written"), "PUT") > parts
    assert storage.retry_while_unreachable(lambda: sha(storage.read_bytes("s3://store/written")), 60) == sha(data[::-1])

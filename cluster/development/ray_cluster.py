"""Two real Ray nodes on this machine, with a token and a job API, for a demonstration and for tests.

The job API listens on loopback. The ports between nodes listen on all interfaces, as always in Ray, and require the
token. Only the processes started here are killed, by their session; `ray stop` would kill every Ray on the machine.
"""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cluster.errors import UserError
from cluster.ray_folder import check_socket_length

START_S = 120.0
"""Timeout for a node to become ready on a busy machine, in seconds."""
OBJECT_STORE_BYTES = 100_000_000


@dataclass(frozen=True)
class LocalCluster:
    """A running cluster."""

    address: str
    """host:port of the GCS, for RAY_ADDRESS."""
    job_api: str
    """URL of the job API, for RAY_API_SERVER_ADDRESS and `ray job submit --address`."""
    token: str = field(repr=False)
    folder: Path
    """Ray's temporary folder: sessions with their logs, and the list of targets for Prometheus."""

    def environment(self) -> dict[str, str]:
        """Return the variables with which `ray job submit` can access the cluster."""
        own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token} if self.token else {"RAY_AUTH_MODE": "disabled"}
        return {"RAY_API_SERVER_ADDRESS": self.job_api, "RAY_USAGE_STATS_ENABLED": "0", **own}


@contextlib.contextmanager
def local_cluster(
    folder: Path,
    *,
    cpus: int = 2,
    token: bool = True,
    variables: Mapping[str, str] | None = None,
    worker_args: Sequence[str] = (),
    worker_variables: Mapping[str, str] | None = None,
) -> Iterator[LocalCluster]:
    """Run a head node that has no CPUs, and one worker node, until the end of the block or of this process.

    Args:
        folder: folder for logs and sockets; a short absolute path, since those of sockets are limited.
        cpus: number of CPUs of the worker.
        token: whether the cluster requires a token, as it should.
        variables: environment of both nodes, and therefore of the jobs that run on them.
        worker_args: additional arguments of the worker's `ray start`.
        worker_variables: additional environment of the worker.

    Raises:
        UserError: a node does not start.
    """
    check_socket_length(folder)
    ray = Path(sys.executable).parent / "ray"
    secret = secrets.token_hex(32) if token else ""
    gcs, dashboard, client, *agents = _free_ports(5)
    cluster = LocalCluster(f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}", secret, folder)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    # The nodes look up `python` of a job's entrypoint.
    environment["PATH"] = f"{ray.parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
    # `ray start` records the latest cluster in its temporary folder: a separate one keeps the user's record.
    environment |= {
        "RAY_TMPDIR": str(folder),
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_JOB_STOP_WAIT_TIME_S": "120",  # a stopped job saves a checkpoint first
        **cluster.environment(),
        **(variables or {}),
    }
    common = ["--block", "--node-ip-address=127.0.0.1", "--disable-usage-stats"]
    common += [f"--object-store-memory={OBJECT_STORE_BYTES}"]
    head = [f"--port={gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", "--num-cpus=0"]
    head += [f"--dashboard-agent-listen-port={agents[0]}", f"--temp-dir={folder}", f"--ray-client-server-port={client}"]
    worker = [f"--address={cluster.address}", f"--num-cpus={cpus}", f"--dashboard-agent-listen-port={agents[1]}"]
    with contextlib.ExitStack() as stack:
        for name, args, more in (
            ("head", ["--head", *head], {}),
            ("worker", [*worker, *worker_args], worker_variables or {}),
        ):
            log = folder / f"{name}.log"
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [str(ray), "start", *args, *common],
                    env={**environment, **more},
                    stdout=output,
                    stderr=output,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            stack.callback(_end, process)
            _wait(process, log, name)
        yield cluster


def _wait(process: subprocess.Popen[bytes], log: Path, name: str) -> None:
    end = time.monotonic() + START_S
    while "Ray runtime started" not in log.read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > end:
            last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["no output"]
            raise UserError(f"the Ray {name} node did not start: {last[0][:200]}; see its log, {log}")
        time.sleep(0.2)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Terminate a node: `ray start --block` terminates its children; kill any that remain in its session."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(15)
    end = time.monotonic() + 15
    while pids := _session(process.pid):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > end:
            break
        time.sleep(0.1)
    process.wait()


def _session(leader: int) -> list[int]:
    """Return the live processes of a session. Ray's processes stay in the session they were started in."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader and fields[0] != "Z":
                found.append(int(folder.name))
    return found


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]

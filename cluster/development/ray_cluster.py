"""Two real Ray nodes on this machine, with a token and a job API, for a demonstration and for tests.

The job API listens on loopback; the ports by which nodes talk listen on all interfaces, as Ray has it, and want the
token. What was started is ended, by its session, and nothing else: `ray stop` would end every Ray of the machine.
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

START_S = 120.0
"""How long a node may take to be ready on a busy machine."""
OBJECT_STORE_BYTES = 100_000_000


@dataclass(frozen=True)
class LocalCluster:
    """A running cluster."""

    address: str
    """host:port of its GCS, for RAY_ADDRESS."""
    job_api: str
    """URL of its job API, for RAY_API_SERVER_ADDRESS and `ray job submit --address`."""
    token: str = field(repr=False)
    folder: Path
    """Ray's temporary folder: sessions with their logs, and the list of places that Prometheus asks."""

    def environment(self) -> dict[str, str]:
        """The variables by which `ray job submit` finds it and is let in."""
        own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token} if self.token else {"RAY_AUTH_MODE": "disabled"}
        return {"RAY_API_SERVER_ADDRESS": self.job_api, "RAY_USAGE_STATS_ENABLED": "0", **own}


@contextlib.contextmanager
def local_cluster(
    folder: Path,
    *,
    cpus: int = 2,
    token: bool = True,
    variables: Mapping[str, str] | None = None,
    worker_words: Sequence[str] = (),
    worker_variables: Mapping[str, str] | None = None,
) -> Iterator[LocalCluster]:
    """A head without work and one worker with `cpus`, which end with the block or with this process.

    Args:
        folder: for logs, absolute and short (Ray's sockets lie below it): at most 40 characters.
        token: whether it wants one, as it should.
        variables: of both nodes, and so of the jobs that run on them.
        worker_words: more words for the worker's `ray start`.
        worker_variables: of the worker alone.

    Raises:
        UserError: a node does not start.
    """
    ray = Path(sys.executable).parent / "ray"
    secret = secrets.token_hex(32) if token else ""
    gcs, dashboard, client, *agents = _free_ports(5)
    cluster = LocalCluster(f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}", secret, folder)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    # `python` in a job's words is looked up by the nodes.
    kept["PATH"] = f"{ray.parent}{os.pathsep}{kept.get('PATH', os.defpath)}"
    # `ray start` notes the newest cluster of a machine below its temporary folder: a user's own stays the newest.
    kept |= {
        "RAY_TMPDIR": str(folder),
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_JOB_STOP_WAIT_TIME_S": "120",  # a job that is stopped saves first
        **cluster.environment(),
        **(variables or {}),
    }
    common = ["--block", "--node-ip-address=127.0.0.1", "--disable-usage-stats"]
    common += [f"--object-store-memory={OBJECT_STORE_BYTES}"]
    head = [f"--port={gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", "--num-cpus=0"]
    head += [f"--dashboard-agent-listen-port={agents[0]}", f"--temp-dir={folder}", f"--ray-client-server-port={client}"]
    worker = [f"--address={cluster.address}", f"--num-cpus={cpus}", f"--dashboard-agent-listen-port={agents[1]}"]
    with contextlib.ExitStack() as stack:
        for name, words, more in (("head", ["--head", *head], {}), ("worker", worker, worker_variables or {})):
            log = folder / f"{name}.log"
            full = [str(ray), "start", *words, *common, *(worker_words if name == "worker" else ())]
            with log.open("wb") as output:
                process = subprocess.Popen(
                    full,
                    env={**kept, **more},
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
            raise UserError(f"the Ray {name} node did not start: {last[0][:200]}; its log is {log}")
        time.sleep(0.2)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a node: `ray start --block` ends its own children, and what it leaves is of its session."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(15)
    end = time.monotonic() + 15
    while family := _session(process.pid):
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > end:
            break
        time.sleep(0.1)
    process.wait()


def _session(leader: int) -> list[int]:
    """Living processes of a session; Ray's own processes stay in the one they were started in."""
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

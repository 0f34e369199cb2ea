"""Probes that `vdsm doctor` runs on each machine: versions, GPUs, clock, disk, storage, reachable peers."""

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.storage import api as storage
from cluster.storage.errors import MachineError, StorageError
from cluster.storage.scratch import scratch_root

Facts = dict[str, Any]
SAMPLE_BYTES = 8 << 20
"""Size of the object that throughput is measured with."""


def facts() -> Facts:
    """Return versions, GPUs, free disk space, and whether Ray requires a token here."""
    folder = Path(os.environ.get("RAY_TMPDIR") or scratch_root()).absolute()
    existing = next(one for one in (folder, *folder.parents) if one.is_dir())  # Ray makes the others
    free = shutil.disk_usage(existing).free
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "ray": _version("ray"),
        "torch": _version("torch"),
        "project": project_version(),
        "free_gb": round(free / 1e9, 1),
        "token": os.environ.get("RAY_AUTH_MODE") == "token",
        "ssh_key": _ssh_key(),
        "gpu": _gpus(),
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _ssh_key() -> str | None:
    """Return the comment of the SSH key that `ray up` has copied to this machine; None without one."""
    path = Path.home() / "ray_bootstrap_key.pem"
    program = shutil.which("ssh-keygen")
    if program is None or not path.is_file():
        return None
    done = subprocess.run([program, "-l", "-f", path], capture_output=True, text=True, timeout=30, check=False)
    # 256 SHA256:... comment (ED25519)
    return done.stdout.strip().partition(" SHA256:")[2].partition(" ")[2].rpartition(" (")[0]


def project_version() -> str:
    """Return a fingerprint of the code that this machine imports, which must be equal on all machines."""
    from cluster.ray_runtime import PACKAGES

    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _gpus() -> Facts:
    """Return the driver version and, if there is a driver, the GPUs that torch can use and the NCCL version."""
    driver = ""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        args = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(args, capture_output=True, text=True, timeout=30, check=False)
        driver = done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout.strip() else ""
    if not driver:
        return {"driver": "", "names": [], "nccl": "", "cuda_build": ""}
    import torch  # takes seconds

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if names and torch.distributed.is_nccl_available() else ""
    return {"driver": driver, "names": names, "nccl": nccl, "cuda_build": torch.version.cuda or ""}


def clock() -> float:
    """Return the time of this machine's clock, in seconds since 1970."""
    return time.time()


def use_storage(url: str) -> Facts:
    """Write, read, list, create once and delete objects below `url`.

    Returns the throughput in MB/s, and the step that failed with its error (`failed`, `error`; empty on success).
    """
    probe = storage.join(url, f".doctor-{uuid.uuid4().hex}")
    found: Facts = {"failed": "", "error": ""}
    data = os.urandom(SAMPLE_BYTES)
    step = "write"
    try:
        began = time.monotonic()
        storage.write_bytes(probe, data)
        found["write_mb_s"] = round(len(data) / 1e6 / (time.monotonic() - began), 1)
        step = "read"
        began = time.monotonic()
        same = storage.read_bytes(probe) == data
        found["read_mb_s"] = round(len(data) / 1e6 / (time.monotonic() - began), 1)
        if not same:
            raise StorageError(f"{url}: the bytes read differ from those written")
        step = "list"
        if probe.rpartition("/")[2] not in storage.list_files(url):
            raise StorageError(f"{url}: the object just written is missing from the listing")
        step = "conditional"
        if not storage.create(f"{probe}-once", b"1") or storage.create(f"{probe}-once", b"2"):
            raise StorageError(f"{url}: two conditional writes of the same new object both succeeded")
    except StorageError as error:
        found |= {"failed": step, "error": str(error), "local": isinstance(error, MachineError)}
    for name in (probe, f"{probe}-once"):
        with contextlib.suppress(StorageError):
            storage.delete(name)
    return found


def storage_clock_skew(url: str) -> float | None:
    """Return the seconds by which this machine's clock is ahead of the S3 server's; None if unknown."""
    if not url.startswith("s3://"):
        return None
    from email.utils import parsedate_to_datetime

    from cluster.storage import s3
    from cluster.storage.s3_client import client

    try:
        response = client().list_objects_v2(Bucket=s3.split_url(url)[0], Prefix=s3.split_url(url)[1], MaxKeys=1)
        date = response["ResponseMetadata"]["HTTPHeaders"]["date"]
    except Exception:  # use_storage reports the cause
        return None
    return time.time() - parsedate_to_datetime(date).timestamp()


def sees(path: str) -> bool:
    """Return whether a file written by another machine is visible here."""
    return Path(path).exists()


def unreachable(peers: Sequence[tuple[str, int]], timeout_s: float = 3.0) -> list[str]:
    """Return the peers that do not accept a connection from here, as host:port."""
    found = []
    for host, port in peers:
        try:
            socket.create_connection((host, port), timeout=timeout_s).close()
        except OSError:
            found.append(f"{host}:{port}")
    return found


def job_api_without_token(host: str, port: int) -> str:
    """Return how a job API treats a request without a token: `closed`, `refused`, or `open`, which is a fault."""
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/api/jobs/", timeout=5):
            return "open"
    except urllib.error.HTTPError as error:
        return "refused" if error.code in (401, 403) else "closed"
    except (OSError, ValueError):
        return "closed"


class Listener:
    """An open port chosen by the system, as collectives use, for other nodes to connect to."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("", 0))

    def port(self) -> int:
        """Return the number of the port."""

        return int(self._socket.getsockname()[1])

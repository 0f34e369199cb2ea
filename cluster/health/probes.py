"""What one machine says of itself, for `vdsm doctor`: versions, GPUs, clock, disk, storage, whom it reaches."""

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.storage import api as storage
from cluster.storage.errors import StorageError

Facts = dict[str, Any]
SAMPLE_BYTES = 8 << 20
"""Length of the object by which throughput is measured."""


def facts() -> Facts:
    """Versions, GPUs, free disk, and whether Ray here wants a token."""
    free = shutil.disk_usage(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()).free
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "ray": _version("ray"),
        "torch": _version("torch"),
        "project": project_version(),
        "free_gb": round(free / 1e9, 1),
        "token": os.environ.get("RAY_AUTH_MODE") == "token",
        "gpu": _gpus(),
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def project_version() -> str:
    """A fingerprint of the code that this machine imports: machines that differ in it do not run the same thing."""
    from cluster.ray_runtime import PACKAGES

    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _gpus() -> Facts:
    """Version of the driver and, where there is one, names of the GPUs that torch can use and version of NCCL."""
    driver = ""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        asked = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
        driver = asked.stdout.splitlines()[0].strip() if asked.returncode == 0 and asked.stdout.strip() else ""
    if not driver:
        return {"driver": "", "names": [], "nccl": "", "cuda_build": ""}
    import torch  # takes seconds

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if names and torch.distributed.is_nccl_available() else ""
    return {"driver": driver, "names": names, "nccl": nccl, "cuda_build": torch.version.cuda or ""}


def clock() -> float:
    """Seconds since 1970 by this machine's clock."""
    return time.time()


def use_storage(url: str) -> Facts:
    """Write, read, create once and delete a few objects below `url`. `failed` says at which step, and `error` why."""
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
            raise StorageError(f"{url}: other bytes came back than were written")
        step = "list"
        if probe.rpartition("/")[2] not in storage.list_files(url):
            raise StorageError(f"{url}: what was just written is not listed")
        step = "conditional"
        if not storage.create(f"{probe}-once", b"1") or storage.create(f"{probe}-once", b"2"):
            raise StorageError(f"{url}: of two writers that must find nothing there, both were let through")
    except StorageError as error:
        found |= {"failed": step, "error": str(error)}
    for name in (probe, f"{probe}-once"):
        with contextlib.suppress(StorageError):
            storage.delete(name)
    return found


def storage_clock(url: str) -> float | None:
    """How many seconds this machine's clock is ahead of the S3 server's; none where that is not told."""
    if not storage.is_s3(url):
        return None
    from email.utils import parsedate_to_datetime

    from cluster.storage import s3
    from cluster.storage.s3_client import client

    try:
        answer = client().list_objects_v2(Bucket=s3.split_url(url)[0], Prefix=s3.split_url(url)[1], MaxKeys=1)
        told = answer["ResponseMetadata"]["HTTPHeaders"]["date"]
    except Exception:  # use_storage says why
        return None
    return time.time() - parsedate_to_datetime(told).timestamp()


def sees(path: str) -> bool:
    """Whether a file of another machine is here too."""
    return Path(path).exists()


def unreachable(peers: Sequence[tuple[str, int]], wait_s: float = 3.0) -> list[str]:
    """Those of the addresses to which no connection can be made from here."""
    found = []
    for host, port in peers:
        try:
            socket.create_connection((host, port), timeout=wait_s).close()
        except OSError:
            found.append(f"{host}:{port}")
    return found


def open_without_token(host: str, port: int) -> str:
    """What the job API at an address does with a stranger: `closed`, `refuses`, or `answers`, which it must not."""
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/api/jobs/", timeout=5):
            return "answers"
    except urllib.error.HTTPError as error:
        return "refuses" if error.code in (401, 403) else "closed"
    except (OSError, ValueError):
        return "closed"


class Doorbell:
    """A port that the system chooses, as collectives do, for others to try."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("", 0))

    def port(self) -> int:
        """The port's number."""
        return int(self._socket.getsockname()[1])

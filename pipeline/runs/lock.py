"""A lock that admits one driver per run.

A local run is locked by the operating system, which releases the lock when its owner dies. In S3 the lock is an object
that its owner rewrites every few seconds; one that has not changed for longer belongs to a dead owner and is taken
over. Writes are conditional, so that exactly one of several contenders succeeds, and no clocks of different machines
are compared.
"""

import contextlib
import fcntl
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError, StorageError

LEASE_S = 30.0
"""Seconds after which the owner of an unchanged lock object in S3 counts as dead."""
RENEWAL_S = 5.0
"""Seconds between two writes of its owner."""

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def run_lock(run: str, *, lease_s: float = LEASE_S, renewal_s: float = RENEWAL_S) -> Iterator[None]:
    """Lock a run against a second training until the block or this process ends.

    Raises:
        UserError: another process is training the run.
    """
    with _s3_lock(run, lease_s, renewal_s) if storage.is_s3(run) else _folder_lock(run):
        yield


@contextlib.contextmanager
def _folder_lock(run: str) -> Iterator[None]:
    Path(run).mkdir(parents=True, exist_ok=True)
    with (Path(run) / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _locked_error(run, "another process") from None
        yield


@contextlib.contextmanager
def _s3_lock(run: str, lease_s: float, renewal_s: float) -> Iterator[None]:
    url = storage.join(run, ".lock")
    lease = _Lease(url, _acquire(url, run, lease_s))
    ended = threading.Event()
    thread = threading.Thread(target=lease.keep, args=(ended, renewal_s), daemon=True, name="run lock")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if not lease.lost:
            with contextlib.suppress(StorageError):
                storage.delete(url)


class _Lease:
    def __init__(self, url: str, etag: str) -> None:
        self._url, self._etag, self.lost = url, etag, False

    def keep(self, ended: threading.Event, renewal_s: float) -> None:
        from cluster.storage import s3

        while not ended.wait(renewal_s):
            try:
                etag = s3.write_if(self._url, _claim(), self._etag)
            except StorageError as error:
                # While storage is unreachable, nobody else can acquire it either.
                logger.warning("%s", error)
                continue
            if etag is None:
                self.lost = not self._is_ours()
                if self.lost:
                    logger.error("%s: another process took over this run; stop one of the two", self._url)
                    return
            else:
                self._etag = etag

    def _is_ours(self) -> bool:
        """Return whether a write of this process succeeded although its response was lost."""
        from cluster.storage import s3

        with contextlib.suppress(StorageError, ValueError):
            content, etag = s3.read_with_etag(self._url)
            if json.loads(content)["owner"] == _owner():
                self._etag = etag
                return True
        return False


def _acquire(url: str, run: str, lease_s: float) -> str:
    """Write the lock object and return its ETag."""
    from cluster.storage import s3

    first_etag: str | None = None
    end = time.monotonic()
    while True:
        own_etag = s3.write_if(url, _claim(), None)
        if own_etag is not None:
            return own_etag
        try:
            content, etag = s3.read_with_etag(url)
        except MissingFileError:
            continue
        owner = _parse_owner(content)
        if first_etag is None:
            if not _is_dead(owner):
                logger.info("%s: checking for %.0f s whether %s is still training it", run, lease_s, _name(owner))
            first_etag, end = etag, time.monotonic() + lease_s
        elif etag != first_etag:
            raise _locked_error(run, _name(owner))
        if _is_dead(owner) or time.monotonic() > end:
            own_etag = s3.write_if(url, _claim(), etag)
            if own_etag is not None:
                return own_etag
            raise _locked_error(run, "another process")
        time.sleep(min(0.5, lease_s / 10))


def _owner() -> dict[str, Any]:
    """Return what identifies this process among all processes of all machines."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    space = Path("/proc/self/ns/pid")
    return {
        "host": socket.gethostname(),
        "boot": boot.read_text().strip() if boot.exists() else "",
        "space": str(space.readlink()) if space.exists() else "",
        "pid": os.getpid(),
    }


def _claim() -> bytes:
    # The content must differ each time, because the ETag is its hash.
    return json.dumps({"owner": _owner(), "claim": uuid.uuid4().hex}).encode()


def _parse_owner(content: bytes) -> dict[str, Any]:
    try:
        owner: dict[str, Any] = json.loads(content)["owner"]
        return {"host": str(owner["host"]), "boot": owner["boot"], "space": owner["space"], "pid": int(owner["pid"])}
    except (ValueError, KeyError, TypeError):
        return {"host": "an unknown machine", "boot": None, "space": None, "pid": 0}


def _is_dead(owner: dict[str, Any]) -> bool:
    """Return whether the owner was a process visible to this one, and has ended."""
    here = _owner()
    if not here["boot"] or any(owner[name] != here[name] for name in ("host", "boot", "space")):
        return False
    return not Path(f"/proc/{owner['pid']}").exists()


def _name(owner: dict[str, Any]) -> str:
    return f"process {owner['pid']} on {owner['host']}"


def _locked_error(run: str, owner: str) -> UserError:
    return UserError(f"{run}: {owner} is training this run; wait, or choose another --name")

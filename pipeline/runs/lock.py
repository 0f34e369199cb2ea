"""One driver per run.

A local run is locked by the system, which also lets go of the lock when its owner dies. In S3 the lock is an object
that its owner rewrites every few seconds; one that stays as it is for longer belongs to a dead owner and is taken over.
Both writes are conditional, so that of several that try just one succeeds, and no two machines' clocks are compared.
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
"""For how long the object in S3 must stay as it is until its owner counts as dead."""
RENEWAL_S = 5.0
"""How often an owner rewrites it."""

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def run_lock(run: str, *, lease_s: float = LEASE_S, renewal_s: float = RENEWAL_S) -> Iterator[None]:
    """Keeps a second training out of a run, until the block or this process ends. UserError where there is one."""
    with _in_s3(run, lease_s, renewal_s) if storage.is_s3(run) else _in_folder(run):
        yield


@contextlib.contextmanager
def _in_folder(run: str) -> Iterator[None]:
    Path(run).mkdir(parents=True, exist_ok=True)
    with (Path(run) / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _taken(run, "another process") from None
        yield


@contextlib.contextmanager
def _in_s3(run: str, lease_s: float, renewal_s: float) -> Iterator[None]:
    url = storage.join(run, ".lock")
    lease = _Lease(url, _take(url, run, lease_s))
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
                # Nobody else can take it either while storage is away.
                logger.warning("%s", error)
                continue
            if etag is None:
                self.lost = not self._is_ours()
                if self.lost:
                    logger.error("%s: another process took this run over; stop one of the two", self._url)
                    return
            else:
                self._etag = etag

    def _is_ours(self) -> bool:
        """Whether a write of ours arrived although its answer did not."""
        from cluster.storage import s3

        with contextlib.suppress(StorageError, ValueError):
            content, etag = s3.read_with_etag(self._url)
            if json.loads(content)["owner"] == _owner():
                self._etag = etag
                return True
        return False


def _take(url: str, run: str, lease_s: float) -> str:
    """Writes the lock and returns its ETag."""
    from cluster.storage import s3

    seen: str | None = None
    end = time.monotonic()
    while True:
        mine = s3.write_if(url, _claim(), None)
        if mine is not None:
            return mine
        try:
            content, etag = s3.read_with_etag(url)
        except MissingFileError:
            continue
        owner = _parsed(content)
        if seen is None:
            if not _is_dead(owner):
                logger.info("%s: looking for %.0f s whether %s still trains it", run, lease_s, _name(owner))
            seen, end = etag, time.monotonic() + lease_s
        elif etag != seen:
            raise _taken(run, _name(owner))
        if _is_dead(owner) or time.monotonic() > end:
            mine = s3.write_if(url, _claim(), etag)
            if mine is not None:
                return mine
            raise _taken(run, "another process")
        time.sleep(min(0.5, lease_s / 10))


def _owner() -> dict[str, Any]:
    """This process among all processes of all machines."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    space = Path("/proc/self/ns/pid")
    return {
        "host": socket.gethostname(),
        "boot": boot.read_text().strip() if boot.exists() else "",
        "space": str(space.readlink()) if space.exists() else "",
        "pid": os.getpid(),
    }


def _claim() -> bytes:
    # Each is another object, for the ETag is a hash of the content.
    return json.dumps({"owner": _owner(), "claim": uuid.uuid4().hex}).encode()


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        owner: dict[str, Any] = json.loads(content)["owner"]
        return {"host": str(owner["host"]), "boot": owner["boot"], "space": owner["space"], "pid": int(owner["pid"])}
    except (ValueError, KeyError, TypeError):
        return {"host": "an unknown machine", "boot": None, "space": None, "pid": 0}


def _is_dead(owner: dict[str, Any]) -> bool:
    """Whether the owner was a process that this one could see, and is gone."""
    here = _owner()
    if not here["boot"] or any(owner[name] != here[name] for name in ("host", "boot", "space")):
        return False
    return not Path(f"/proc/{owner['pid']}").exists()


def _name(owner: dict[str, Any]) -> str:
    return f"process {owner['pid']} on {owner['host']}"


def _taken(run: str, who: str) -> UserError:
    return UserError(f"{run}: {who} is training this run; wait, or choose another --name")

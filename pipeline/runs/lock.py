"""A lock that admits one driver per run, and fences the run: whoever lost the lock stops before its next write.

A local run is locked by the operating system, which releases the lock when its owner dies. In S3, and where the file
system has no locks, the lock is a file that its owner rewrites every few seconds; one that has not changed for longer
belongs to a dead owner and is taken over. Writes are conditional, so that exactly one of several contenders succeeds,
and no clocks of different machines are compared.

Each owner writes a claim of its own into the lock. Its processes read it before every write: a driver that was paused
while another took over, or a worker that outlives its driver, finds another claim.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError, StorageError
from cluster.storage.fence import LOCK, Fence, fenced
from cluster.storage.os_errors import explain
from cluster.storage.own_file import open_own_file

LEASE_S = 30.0
"""Seconds after which the owner of an unchanged lock file counts as dead."""
RENEWAL_S = 5.0
"""Seconds between two writes of its owner."""
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
"""What a file system without locks answers to a request for one, Lustre without its option flock for instance."""

logger = logging.getLogger(__name__)


class LostLockError(StorageError):
    """Another process holds the lock of this one's run."""


@dataclass(frozen=True)
class _Claim:
    """What identifies one owner of the lock of a run, in all processes that write for it."""

    run: str
    token: str
    use: str

    def check(self) -> None:
        """Raise LostLockError unless the lock still holds this claim."""
        url = storage.join(self.run, LOCK)
        try:
            token = _token(_read_with_etag(url)[0])  # its owner may renew it meanwhile
        except MissingFileError:
            token = ""
        if not token:
            raise LostLockError(
                f"{self.run}: the lock of this run was released or deleted, or this machine does not share its folder; "
                "nothing more is written"
            )
        if token != self.token:
            raise LostLockError(
                f"{self.run}: another process took over this run while this one was paused or cut off from storage; "
                "nothing more is written, and the run continues there"
            )


@contextlib.contextmanager
def run_lock(
    run: str, *, lease_s: float = LEASE_S, renewal_s: float = RENEWAL_S,
    use: str = "training this run; wait, or choose another --name",
) -> Iterator[None]:  # fmt: skip
    """Lock a run against a second training until the block or this process ends.

    Within the block, whatever this process writes below the folder of the run is fenced: LostLockError is raised
    instead if the lock was lost. `active_fences` returns the fence, for the other processes of this training.

    Args:
        run: its folder.
        lease_s: see `LEASE_S`.
        renewal_s: see `RENEWAL_S`.
        use: what another process that holds the lock is doing, and what to do about it.

    Raises:
        UserError: another process is training the run.
    """
    claim = _Claim(run, uuid.uuid4().hex, use)
    locked = _lease(claim, lease_s, renewal_s) if storage.is_remote(run) else _folder_lock(claim, lease_s, renewal_s)
    with locked, fenced(Fence(run, claim.check)):
        yield


@contextlib.contextmanager
def _folder_lock(claim: _Claim, lease_s: float, renewal_s: float) -> Iterator[None]:
    folder = Path(claim.run)
    folder.mkdir(parents=True, exist_ok=True)
    with open_own_file(folder / LOCK) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _locked_error(claim, "another process") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                explain(folder / LOCK, error)
            logger.info("%s: this file system has no locks; a file that is rewritten takes their place", claim.run)
        else:
            _replace(lock, _claim(claim.token))
            try:
                yield
            finally:
                _replace(lock, b"")  # a worker that is still alive writes nothing more
            return
    with _lease(claim, lease_s, renewal_s):
        yield


def _replace(lock: BinaryIO, content: bytes) -> None:
    """Write the content of a lock file, visible to other machines."""
    try:
        lock.truncate(0)
        lock.write(content)
        lock.flush()
        os.fsync(lock.fileno())
    except OSError as error:
        explain(lock.name, error)


@contextlib.contextmanager
def _lease(claim: _Claim, lease_s: float, renewal_s: float) -> Iterator[None]:
    url = storage.join(claim.run, LOCK)
    lease = _Lease(url, claim.token, _acquire(url, claim, lease_s))
    ended = threading.Event()
    thread = threading.Thread(target=lease.keep, args=(ended, renewal_s), daemon=True, name="run lock")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(StorageError):
            claim.check()
            storage.delete(url)


class _Lease:
    def __init__(self, url: str, token: str, etag: str) -> None:
        self._url, self._token, self._etag = url, token, etag

    def keep(self, ended: threading.Event, renewal_s: float) -> None:
        """Renew the lease until the event is set, or another process has taken the lock over."""
        while not ended.wait(renewal_s):
            try:
                etag = _write_if(self._url, _claim(self._token), self._etag)
                if etag is None and not self._is_ours():
                    logger.error("%s: another process took over this run; this one stops", self._url)
                    return
            except StorageError as error:
                # While storage is unreachable, nobody else can acquire it either.
                logger.warning("%s", error)
                continue
            self._etag = etag or self._etag

    def _is_ours(self) -> bool:
        """Return whether a write of this process succeeded although its response was lost."""
        with contextlib.suppress(MissingFileError):
            content, etag = _read_with_etag(self._url)
            if _token(content) == self._token:
                self._etag = etag
                return True
        return False


def _acquire(url: str, claim: _Claim, lease_s: float) -> str:
    """Write the lock file and return its ETag."""
    first_etag: str | None = None
    end = time.monotonic()
    while True:
        own_etag = _write_if(url, _claim(claim.token), None)
        if own_etag is not None:
            return own_etag
        try:
            content, etag = _read_with_etag(url)
        except MissingFileError:
            continue
        owner = _parse_owner(content)
        is_free = not content or _is_dead(owner)
        if first_etag is None:
            if not is_free:
                logger.info("%s: checking for %.0f s whether %s is still training it", claim.run, lease_s, _name(owner))
            first_etag, end = etag, time.monotonic() + lease_s
        elif etag != first_etag:
            raise _locked_error(claim, _name(owner))
        if is_free or time.monotonic() > end:
            own_etag = _write_if(url, _claim(claim.token), etag)
            if own_etag is not None:
                return own_etag
            raise _locked_error(claim, "another process")
        time.sleep(min(0.5, lease_s / 10))


def _write_if(url: str, data: bytes, etag: str | None) -> str | None:
    """Write a file if it still has `etag` (None: if it does not exist yet); return its new ETag, or None.

    In a folder, two processes that replace a file in the same instant may both succeed. Then the claim of the second
    one counts, and the first one stops at its next write.
    """
    if storage.is_remote(url):
        return storage.objects(url).write_if(url, data, etag)
    if etag is None:
        return _etag(data) if storage.create(url, data) else None
    with contextlib.suppress(MissingFileError):
        if _read_with_etag(url)[1] == etag:
            storage.write_bytes(url, data)
            return _etag(data)
    return None


def _read_with_etag(url: str) -> tuple[bytes, str]:
    if storage.is_remote(url):
        return storage.objects(url).read_with_etag(url)
    content = storage.read_bytes(url)
    return content, _etag(content)


def _etag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


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


def _claim(token: str = "") -> bytes:
    """Return the content of the lock of an owner."""
    # It must differ each time, because the ETag is its hash.
    return json.dumps({"owner": _owner(), "claim": token or uuid.uuid4().hex, "write": uuid.uuid4().hex}).encode()


def _token(content: bytes) -> str:
    """Return the claim in the content of a lock; empty if it holds none."""
    try:
        return str(json.loads(content)["claim"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""


def _parse_owner(content: bytes) -> dict[str, Any]:
    try:
        owner: dict[str, Any] = json.loads(content)["owner"]
        return {"host": str(owner["host"]), "boot": owner["boot"], "space": owner["space"], "pid": int(owner["pid"])}
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return {"host": "an unknown machine", "boot": None, "space": None, "pid": 0}


def _is_dead(owner: dict[str, Any]) -> bool:
    """Return whether the owner was a process visible to this one, and has ended."""
    here = _owner()
    if not here["boot"] or any(owner[name] != here[name] for name in ("host", "boot", "space")):
        return False
    return not Path(f"/proc/{owner['pid']}").exists()


def _name(owner: dict[str, Any]) -> str:
    return f"process {owner['pid']} on {owner['host']}"


def _locked_error(claim: _Claim, owner: str) -> UserError:
    return UserError(f"{claim.run}: {owner} is {claim.use}")

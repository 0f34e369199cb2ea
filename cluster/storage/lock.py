"""A lock that admits one writer per folder, and fences it: whoever lost the lock stops before its next write.

A local folder is locked by the operating system, which releases the lock when its owner dies. In S3, and where the file
system has no locks, the lock is a file that its owner rewrites every few seconds; one that has not changed for longer
belongs to a dead owner and is taken over. Writes are conditional, so that exactly one of several contenders succeeds,
and no clocks of different machines are compared. The file is removed with the lock.

Each owner writes a claim of its own into the lock. Its processes read it before every write: a driver that was paused
while another took over, or a worker that outlives its driver, finds another claim.
"""

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError, StorageError
from cluster.storage.fence import LOCK, Fence, fenced
from cluster.storage.lock_owner import find_owner, is_dead, lock_content, read_token
from cluster.storage.os_errors import explain
from cluster.storage.own_file import open_own_file

LEASE_S = 30.0
"""Seconds after which the owner of an unchanged lock file counts as dead."""
RENEWAL_S = 5.0
"""Seconds between two writes of its owner."""
_MAX_CONTENT = 10_000
"""Bytes that are read of a lock of another process."""
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
"""What a file system without locks answers to a request for one, Lustre without its option flock for instance."""

logger = logging.getLogger(__name__)


class LostLockError(StorageError):
    """Another process holds the lock of this one's folder."""


@dataclass(frozen=True)
class _Claim:
    """What identifies one owner of the lock of a folder, in all processes that write for it."""

    folder: str
    kind: str
    """What the folder is, for messages."""
    use: str
    """What the owner does, for the messages of others."""
    remedy: str
    token: str

    def check(self) -> None:
        """Raise LostLockError unless the lock still holds this claim."""
        url = storage.join(self.folder, LOCK)
        try:
            token = read_token(_read_with_etag(url)[0])  # its owner may renew it meanwhile
        except MissingFileError:
            token = ""
        if not token:
            raise LostLockError(
                f"{self.folder}: the lock of this {self.kind} was released or deleted, or this machine does not share "
                "its folder; nothing more is written"
            )
        if token != self.token:
            raise LostLockError(
                f"{self.folder}: another process took over this {self.kind} while this one was paused or cut off from "
                f"storage; nothing more is written, and the {self.kind} continues there"
            )

    def content(self) -> bytes:
        """Return what the owner writes into the lock, different each time."""
        return lock_content(self.token, self.use)

    def refused(self, content: bytes = b"") -> UserError:
        """Return the error of another contender, given the content of the lock."""
        owner = find_owner(content)
        return UserError(f"{self.folder}: {owner.name} is {owner.use or self.use}; {self.remedy}")


@contextlib.contextmanager
def run_lock(run: str, *, lease_s: float = LEASE_S, renewal_s: float = RENEWAL_S) -> Iterator[None]:
    """Lock a run against a second training until the block or this process ends.

    Within the block, whatever this process writes below the folder of the run is fenced: LostLockError is raised
    instead if the lock was lost. `active_fences` returns the fence, for the other processes of this training.

    Args:
        run: its folder.
        lease_s: see `LEASE_S`.
        renewal_s: see `RENEWAL_S`.

    Raises:
        UserError: another process is training the run.
    """
    claim = _Claim(run, "run", "training this run", "wait, or choose another --name", uuid.uuid4().hex)
    with _locked(claim, lease_s, renewal_s):
        yield


@contextlib.contextmanager
def output_lock(out: str, option: str = "--out") -> Iterator[None]:
    """Lock the folder of a command's output for the block, as `run_lock` does: two of them would mix their files.

    Args:
        out: the folder, as given.
        option: the option that names it.

    Raises:
        UserError: another process is writing there, or the folder cannot be created.
    """
    folder = storage.join(out)
    claim = _Claim(folder, "folder", "writing this folder", f"wait, or choose another {option}", uuid.uuid4().hex)
    with _locked(claim, LEASE_S, RENEWAL_S):
        yield


@contextlib.contextmanager
def _locked(claim: _Claim, lease_s: float, renewal_s: float) -> Iterator[None]:
    kind = _lease if storage.is_remote(claim.folder) else _system_lock
    with kind(claim, lease_s, renewal_s), fenced(Fence(claim.folder, claim.check)):
        yield


@contextlib.contextmanager
def _system_lock(claim: _Claim, lease_s: float, renewal_s: float) -> Iterator[None]:
    """Hold a lock of the operating system, or a lease where the file system has no locks."""
    path = Path(claim.folder) / LOCK
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        explain(path.parent, error)
    lock = _lock_file(path, claim)
    if lock is None:
        logger.info("%s: this file system has no locks; a file that is rewritten takes their place", claim.folder)
        with _lease(claim, lease_s, renewal_s):
            yield
        return
    with lock:
        _replace(lock, claim.content())
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                if _is_at(lock, path):
                    path.unlink()
            _replace(lock, b"")  # a worker that is still alive writes nothing more


def _lock_file(path: Path, claim: _Claim) -> BinaryIO | None:
    """Return the file at `path`, opened and locked; None if the file system has no locks."""
    while True:
        lock = open_own_file(path)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(lock, path):
                return lock
            lock.close()  # its owner has removed it meanwhile, and another process may have created the next one
        except BlockingIOError:
            with lock:
                lock.seek(0)
                raise claim.refused(lock.read(_MAX_CONTENT)) from None
        except OSError as error:
            lock.close()
            if error.errno in _NO_LOCKS:
                return None
            explain(path, error)


def _is_at(lock: BinaryIO, path: Path) -> bool:
    """Return whether a file that is open is still the one at `path`."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(lock.fileno()), path.lstat())
    return False


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
    url = storage.join(claim.folder, LOCK)
    lease = _Lease(url, claim, _acquire(url, claim, lease_s))
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
    def __init__(self, url: str, claim: _Claim, etag: str) -> None:
        self._url, self._claim, self._etag = url, claim, etag

    def keep(self, ended: threading.Event, renewal_s: float) -> None:
        """Renew the lease until the event is set, or another process has taken the lock over."""
        while not ended.wait(renewal_s):
            try:
                etag = _write_if(self._url, self._claim.content(), self._etag)
                if etag is None and not self._is_ours():
                    logger.error("%s: another process took over this %s; this one stops", self._url, self._claim.kind)
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
            if read_token(content) == self._claim.token:
                self._etag = etag
                return True
        return False


def _acquire(url: str, claim: _Claim, lease_s: float) -> str:
    """Write the lock file and return its ETag."""
    first_etag: str | None = None
    end = time.monotonic()
    while True:
        own_etag = _write_if(url, claim.content(), None)
        if own_etag is not None:
            return own_etag
        try:
            content, etag = _read_with_etag(url)
        except MissingFileError:
            continue
        owner = find_owner(content)
        is_free = not content or is_dead(owner)
        if first_etag is None:
            if not is_free:
                logger.info(
                    "%s: checking for %.0f s whether %s is still %s",
                    claim.folder, lease_s, owner.name, owner.use or claim.use,
                )  # fmt: skip
            first_etag, end = etag, time.monotonic() + lease_s
        elif etag != first_etag:
            raise claim.refused(content)
        if is_free or time.monotonic() > end:
            own_etag = _write_if(url, claim.content(), etag)
            if own_etag is not None:
                return own_etag
            raise claim.refused()
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

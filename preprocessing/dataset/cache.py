"""Local cache of shards from S3: downloaded once for all processes of a machine, verified, kept while there is room.

A process that reads a shard holds a shared lock on its file. Only unlocked files are evicted, the least recently used
first. What one more shard costs does not depend on how many there are: the file `room.lock` holds their total size, and
the folder is listed only when a process has evicted all that its last listing found.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cluster.storage import api as storage
from cluster.storage import os_errors
from cluster.storage.own_file import open_own_file
from cluster.storage.scratch import home
from preprocessing.dataset.format import SHARD_SUFFIX, StoredFile
from preprocessing.dataset.schema import is_sha256

PATIENCE_S = 300.0
"""How long a download is retried while storage is unreachable, in seconds."""
CACHE_BYTES = 100_000_000_000
"""Default capacity of the cache."""

_MAX_DIGITS = 20
_REMEDY = "set VDSM_CACHE to a folder on a local disk that this user can write, with enough space"

logger = logging.getLogger(__name__)


class DamagedShardError(Exception):
    """The length or SHA-256 of a shard did not match the manifest after two downloads, or the manifest has no hash."""


def cache_folder() -> Path:
    """Return the folder of the cache: `$VDSM_CACHE` or `~/.cache/vdsm`."""
    return Path(os.environ.get("VDSM_CACHE") or home() / ".cache" / "vdsm").expanduser()


class ShardCache:
    """A cache of shards in a folder. A fault of this machine, such as a full disk, is a MachineError.

    Args:
        folder: shared by all processes that use the cache.
        capacity_bytes: evict shards above this size; shards in use stay even then.
    """

    def __init__(self, folder: Path, capacity_bytes: int) -> None:
        self._folder, self._capacity = folder / "shards", capacity_bytes
        self._evictable: deque[tuple[Path, int, int]] = deque()
        """Path, time of the last use and size of shards of the last listing, the least recently used first."""

    def _explained(self) -> contextlib.AbstractContextManager[None]:
        return os_errors.explained(self._folder, _REMEDY)

    def open(self, url: str, shard: StoredFile) -> BinaryIO:
        """Return the shard as an open file; it stays on disk until the file and all its memory maps are closed.

        Raises:
            DamagedShardError: two downloads did not match the manifest.
            StorageError: the shard cannot be downloaded.
        """
        with self._explained():
            while True:
                file = self._locked(url, shard)
                if file is not None and os.fstat(file.fileno()).st_nlink:
                    os.utime(self._path(shard))
                    return file
                if file is not None:
                    file.close()  # evicted before it was locked

    def _locked(self, url: str, shard: StoredFile) -> BinaryIO | None:
        """Return the shard as an open file with a shared lock, or None if it was evicted a moment ago."""
        with self._exclusive(shard, wait=True):
            if not self._is_cached(shard):
                self._download(url, shard)
            try:
                file = self._path(shard).open("rb")
            except FileNotFoundError:
                return None
            fcntl.flock(file, fcntl.LOCK_SH)
            return file

    def prepare(self, url: str, shard: StoredFile) -> bool:
        """Prefetch a shard. Return False if shards in use leave no room for it.

        Return True also if another process is downloading it.
        """
        with self._explained(), self._exclusive(shard, wait=False) as exclusive:
            if not exclusive:
                return True
            if not self._is_cached(shard):
                _check_size(url, shard)
                if not self._make_room(shard["size_bytes"]):
                    return False
                self._download(url, shard)
            with contextlib.suppress(FileNotFoundError):
                os.utime(self._path(shard))
        return True

    def discard(self, shard: StoredFile) -> None:
        """Remove a copy that was changed after its download."""
        with self._explained(), self._exclusive(shard, wait=True), self._room() as room:
            if self._is_cached(shard):
                room.total -= shard["size_bytes"]
            self._path(shard).unlink(missing_ok=True)

    def _path(self, shard: StoredFile) -> Path:
        """Return the file of a shard. Its name is part of a foreign manifest, and must not lead out of the folder."""
        if not is_sha256(shard["sha256"]):
            raise DamagedShardError(f"{shard['path']}: its SHA-256 in the manifest is not a hash")
        return self._folder / (shard["sha256"] + SHARD_SUFFIX)

    def _is_cached(self, shard: StoredFile) -> bool:
        # A file gets this name only after it was verified.
        with contextlib.suppress(FileNotFoundError):
            return bool(self._path(shard).stat().st_size == shard["size_bytes"])
        return False

    @contextlib.contextmanager
    def _exclusive(self, shard: StoredFile, *, wait: bool) -> Iterator[bool]:
        """Lock the shard against other downloads. Yield False if another process holds the lock and `wait` is False."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(shard).with_suffix(".lock")
        while True:
            with open_own_file(path) as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                except BlockingIOError:
                    yield False
                    return
                if not _is_at(lock, path):  # its holder has deleted it meanwhile
                    continue
                try:
                    yield True
                finally:
                    path.unlink(missing_ok=True)
                return

    def _download(self, url: str, shard: StoredFile) -> None:
        remote = storage.join(url, shard["path"])
        unverified = self._path(shard).with_suffix(".unchecked")
        _check_size(url, shard)
        self._make_room(shard["size_bytes"])
        for attempt in (1, 2):
            storage.retry_while_unreachable(lambda: storage.download(remote, unverified), PATIENCE_S)
            if unverified.stat().st_size == shard["size_bytes"] and _sha256(unverified) == shard["sha256"]:
                with self._room() as room:
                    room.total += shard["size_bytes"]
                    unverified.replace(self._path(shard))
                return
            again = "; downloading it again" if attempt == 1 else ""
            logger.warning("%s: its length or SHA-256 does not match the manifest%s", remote, again)
        unverified.unlink()
        raise DamagedShardError(remote)

    def _make_room(self, size_bytes: int) -> bool:
        """Evict the least recently used shards that are not in use. Return whether there is room then."""
        with self._room() as room:
            if room.total + size_bytes > self._capacity and not self._evict(room, size_bytes):
                self._list(room)
                return self._evict(room, size_bytes)
        return True

    def _evict(self, room: "_Room", size_bytes: int) -> bool:
        """Evict shards of the last listing that were not used since. Return whether there is room then."""
        while room.total + size_bytes > self._capacity:
            if not self._evictable:
                return False
            path, used, size = self._evictable.popleft()
            with contextlib.suppress(FileNotFoundError):  # evicted by another process
                if path.stat().st_mtime_ns == used and _delete_unused(path):
                    room.total -= size
        return True

    def _list(self, room: "_Room") -> None:
        """List the shards, and correct their total, which a process that was killed may have left behind."""
        found = []
        for path in self._folder.glob(f"*{SHARD_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                found.append((path, status.st_mtime_ns, status.st_size))
        self._evictable = deque(sorted(found, key=lambda shard: shard[1]))
        room.total = sum(size for *_, size in found)

    @contextlib.contextmanager
    def _room(self) -> Iterator["_Room"]:
        """Lock the total size of all shards."""
        with open_own_file(self._folder / "room.lock") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            room = _Room(file)
            if room.stored is None:
                self._list(room)
            yield room


class _Room:
    """The size of all shards in the cache, in bytes: stored at once, and before a shard gets its name.

    So a process that is killed leaves it too large, if anything, which the next listing corrects.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        file.seek(0)
        text = file.read(_MAX_DIGITS)
        self.stored = int(text) if text.isdigit() else None

    @property
    def total(self) -> int:
        return self.stored or 0

    @total.setter
    def total(self, size_bytes: int) -> None:
        self.stored = max(0, size_bytes)
        self._file.truncate(0)
        self._file.write(b"%d" % self.stored)
        self._file.flush()


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Return whether an open file is the one at `path`."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat(follow_symlinks=False))
    return False


def _check_size(url: str, shard: StoredFile) -> None:
    """Compare the length of a shard with that in the manifest, which would empty the cache if it were far too large."""
    remote = storage.join(url, shard["path"])
    if storage.retry_while_unreachable(lambda: storage.size(remote), PATIENCE_S) != shard["size_bytes"]:
        logger.warning("%s: its length does not match the manifest", remote)
        raise DamagedShardError(remote)


def _delete_unused(path: Path) -> bool:
    with contextlib.suppress(OSError), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError if it is in use
        path.unlink()
        return True
    return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

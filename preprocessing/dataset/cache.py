"""Shards from S3 on this machine: brought once for all its processes, checked, and kept while there is room.

A process that uses a shard holds a shared lock on its file, and only files that nobody holds are deleted, those first
that were not asked for the longest.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from cluster.storage import api as storage

PATIENCE_S = 300.0
"""For how long a shard is asked for while storage is unreachable."""
CACHE_BYTES = 100_000_000_000
"""Room for shards, unless it is said otherwise."""

logger = logging.getLogger(__name__)


class DamagedShardError(Exception):
    """What came, twice, has not the length and the SHA-256 that the manifest promises."""


class ShardCache:
    """The cache in `folder`, of at most `capacity_bytes`; what is in use stays even where that is more."""

    def __init__(self, folder: Path, capacity_bytes: int) -> None:
        self._folder, self._capacity = folder / "shards", capacity_bytes

    def open(self, url: str, shard: dict[str, Any]) -> BinaryIO:
        """The shard's file, opened; it stays on the disk until it is closed and all its maps are.

        Raises DamagedShardError, or StorageError where it cannot be had.
        """
        path = self._path(shard)
        while True:
            with self._alone(shard, wait=True):
                if not self._is_there(shard):
                    self._bring(url, shard)
                try:
                    file = path.open("rb")
                except FileNotFoundError:  # deleted just now, to make room
                    continue
                fcntl.flock(file, fcntl.LOCK_SH)
            if os.fstat(file.fileno()).st_nlink:
                os.utime(path)
                return file
            file.close()  # deleted before it was held

    def prepare(self, url: str, shard: dict[str, Any]) -> bool:
        """Brings a shard ahead of need. False where there is no room but by deleting what is in use; True also where
        another process is bringing it."""
        with self._alone(shard, wait=False) as alone:
            if not alone:
                return True
            if not self._is_there(shard):
                if not self._make_room(shard["size_bytes"]):
                    return False
                self._bring(url, shard)
            with contextlib.suppress(FileNotFoundError):
                os.utime(self._path(shard))
        return True

    def discard(self, shard: dict[str, Any]) -> None:
        """Forgets a copy that is not what it was any more."""
        with self._alone(shard, wait=True):
            self._path(shard).unlink(missing_ok=True)

    def _path(self, shard: dict[str, Any]) -> Path:
        return self._folder / f"{shard['sha256']}.tar"

    def _is_there(self, shard: dict[str, Any]) -> bool:
        # A file with this name was complete and checked before it got the name.
        with contextlib.suppress(FileNotFoundError):
            return bool(self._path(shard).stat().st_size == shard["size_bytes"])
        return False

    @contextlib.contextmanager
    def _alone(self, shard: dict[str, Any], *, wait: bool) -> Iterator[bool]:
        """Whether no other process brings this shard within the block."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._path(shard).with_suffix(".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True

    def _bring(self, url: str, shard: dict[str, Any]) -> None:
        place = storage.join(url, shard["path"])
        unchecked = self._path(shard).with_suffix(".unchecked")
        self._make_room(shard["size_bytes"])
        for attempt in (1, 2):
            self._patiently(lambda: storage.download(place, unchecked))
            if unchecked.stat().st_size == shard["size_bytes"] and _sha256(unchecked) == shard["sha256"]:
                unchecked.replace(self._path(shard))
                return
            again = "; it is fetched once more" if attempt == 1 else ""
            logger.warning("%s: its length or SHA-256 is not the one in the manifest%s", place, again)
        unchecked.unlink()
        raise DamagedShardError(place)

    def _make_room(self, size_bytes: int) -> bool:
        """Deletes what was not asked for the longest and is not in use. Whether there is room then."""
        with (self._folder / "room.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            kept = {}
            for path in self._folder.glob("*.tar"):
                with contextlib.suppress(FileNotFoundError):
                    kept[path] = path.stat()
            total = sum(status.st_size for status in kept.values())
            for path in sorted(kept, key=lambda path: kept[path].st_mtime_ns):
                if total + size_bytes <= self._capacity:
                    break
                if _delete_unused(path):
                    total -= kept[path].st_size
        return total + size_bytes <= self._capacity

    def _patiently(self, action: Callable[[], None]) -> None:
        storage.patiently(action, PATIENCE_S)


def _delete_unused(path: Path) -> bool:
    with contextlib.suppress(OSError), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError where it is in use
        path.unlink()
        return True
    return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

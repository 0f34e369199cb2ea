"""Writes to local folders that are complete or absent, even after a crash, and fenced (see `fence`)."""

import contextlib
import errno
import fcntl
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from cluster.storage.fence import check_write
from cluster.storage.os_errors import explain

_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)
"""What file systems without hard links, such as exFAT and some network drives, answer to a request for one."""


@contextlib.contextmanager
def replacing(url: str) -> Iterator[Path]:
    """Yield the path of an empty file next to `url`; if the block succeeds, sync it to disk and rename it to `url`."""
    path = Path(url)
    try:
        check_write(url)
        with _partial(path) as partial:
            yield partial
            _sync(partial)
            check_write(url)  # writing may have taken long
            partial.replace(path)
        _sync(path.parent)
    except OSError as error:
        explain(url, error)


def create(url: str, data: bytes) -> bool:
    """Write `data` unless `url` exists; return whether it was written. Exactly one of concurrent calls succeeds."""
    path = Path(url)
    try:
        check_write(url)
        with _partial(path) as partial:
            partial.write_bytes(data)
            _sync(partial)
            try:
                os.link(partial, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                if not _create_in_place(path, data):
                    return False
        _sync(path.parent)
    except OSError as error:
        explain(url, error)
    return True


def _create_in_place(path: Path, data: bytes) -> bool:
    """Write `data` unless `path` exists, where files cannot be linked: others may see it while it is incomplete."""
    try:
        file = path.open("xb")
    except FileExistsError:
        return False
    try:
        with file:
            file.write(data)
        _sync(path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return True


def delete(url: str) -> None:
    """Remove a file, if it exists."""
    try:
        check_write(url)
        Path(url).unlink(missing_ok=True)
    except OSError as error:
        explain(url, error)


def is_partial(path: Path) -> bool:
    """Return whether `path` is an unfinished write."""
    return path.name.startswith(".") and path.name.endswith(".partial")


def remove_partial_files(folder: Path) -> None:
    """Remove the partial files that killed writers left below a folder."""
    for parent, _, names in os.walk(folder):
        for name in names:
            if is_partial(Path(name)):
                with contextlib.suppress(OSError):  # its writer lives, or the file system cannot tell whether it does
                    _remove_unlocked(Path(parent) / name)


@contextlib.contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """Yield the path of a new, empty file in the folder of `path`, and remove it after the block if it still exists.

    It is locked within the block, because `remove_partial_files` must not remove what a living process writes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield partial
    finally:
        os.close(handle)
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _remove_unlocked(partial: Path) -> None:
    """Remove a partial file. Raise OSError if its writer has it locked, or if the file system has no locks."""
    handle = os.open(partial, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        partial.unlink()
    finally:
        os.close(handle)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

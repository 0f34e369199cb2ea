"""Read and write bytes in local folders and in object stores through one set of functions.

A URL is a local path, or `s3://bucket/key`; or, through obstore, `gs://bucket/key` or `az://container/key`. Errors that
a user can fix (no such bucket, refused credentials, a missing folder) are `StorageError`s of one line with the remedy;
a missing file is a `MissingFileError`.
"""

import errno
import logging
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

from cluster.errors import check_address
from cluster.storage import local
from cluster.storage.cloud_client import SCHEMES
from cluster.storage.errors import MissingFileError, StorageError, UnreachableError
from cluster.storage.object_store import ObjectStore
from cluster.storage.os_errors import explain

R = TypeVar("R")

log = logging.getLogger(__name__)


def is_remote(url: str) -> bool:
    """Return whether `url` is in an object store.

    Raises:
        StorageError: the scheme is neither absent nor one of an object store.
        UserError: the URL holds credentials.
    """
    scheme, separator, _ = url.partition("://")
    if separator:
        check_address(url)
    if separator and scheme != "s3" and scheme not in SCHEMES:
        raise StorageError(f"{url}: {scheme}:// is not supported; give a local folder or s3://bucket/prefix")
    return bool(separator)


def objects(url: str) -> ObjectStore:
    """Return the functions for the object store that holds `url`."""
    if url.startswith("s3://"):
        from cluster.storage import s3

        return s3
    from cluster.storage import cloud

    return cloud


def join(url: str, *parts: str) -> str:
    """Return `url` with `parts` appended, separated by `/`."""
    tail = "/".join(part.strip("/") for part in parts if part.strip("/"))
    base = url.rstrip("/")
    return f"{base}/{tail}" if tail else base or "/"


def read_bytes(url: str) -> bytes:
    """Return the complete content.

    Raises:
        MissingFileError: the file does not exist.
    """
    if is_remote(url):
        return objects(url).read_bytes(url)
    try:
        with open_file(url) as file:
            return file.read()
    except OSError as error:
        explain(url, error)


def open_file(path: str | Path, *, buffering: int = -1) -> BinaryIO:
    """Open a local file for reading, as `open` does. A pipe or a device, which could block or never end, is refused.

    Raises:
        StorageError: it is no regular file.
        OSError: it cannot be opened.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would wait for its writer
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise StorageError(f"{path}: not a regular file but a pipe, a socket or a device; replace or remove it")
        return open(handle, "rb", buffering)
    except BaseException:
        os.close(handle)
        raise


def write_bytes(url: str, data: bytes) -> None:
    """Write `data` atomically: a reader sees the new content or the old, even if this process is killed."""
    if is_remote(url):
        objects(url).write_bytes(url, data)
        return
    with local.replacing(url) as partial, partial.open("wb") as file:
        file.write(data)


def read_range(url: str, start: int, length: int) -> bytes:
    """Return `length` bytes from offset `start`, or fewer at the end of the file."""
    if is_remote(url):
        return objects(url).read_range(url, start, length)
    try:
        with open_file(url) as file:
            file.seek(start)
            return file.read(length)
    except OSError as error:
        explain(url, error)


def create(url: str, data: bytes) -> bool:
    """Write `data` unless `url` exists; return whether it was written. Exactly one of concurrent calls succeeds."""
    if is_remote(url):
        return objects(url).write_if(url, data, None) is not None
    return local.create(url, data)


def upload(path: Path, url: str) -> None:
    """Copy a local file to `url`, as atomically as `write_bytes`."""
    if is_remote(url):
        objects(url).upload(path, url)
        return
    with local.replacing(url) as partial:
        shutil.copyfile(path, partial)


def download(url: str, path: Path) -> None:
    """Copy `url` to the local file `path`, atomically.

    From S3, a broken connection is resumed by ranged reads of the same version of the object (ETag), and the length is
    verified.
    """
    with local.replacing(str(path)) as partial:
        if is_remote(url):
            objects(url).download(url, partial)
            return
        try:
            with open_file(url) as file, partial.open("wb") as copy:
                shutil.copyfileobj(file, copy, 1 << 20)
        except OSError as error:
            explain(url, error)


def size(url: str) -> int:
    """Return the length in bytes.

    Raises:
        MissingFileError: the file does not exist.
    """
    if is_remote(url):
        return objects(url).size(url)
    try:
        return Path(url).stat().st_size
    except OSError as error:
        explain(url, error)


def exists(url: str) -> bool:
    """Return whether `url` is a file (not a folder).

    Raises:
        StorageError: the bucket is missing, or the credentials are refused.
    """
    try:
        size(url)
    except MissingFileError:
        return False
    return is_remote(url) or Path(url).is_file()


def list_files(url: str) -> list[str]:
    """Return the sorted paths of all files below the folder `url`, relative to it and without unfinished local writes.

    S3 has no folders: there, a prefix without objects gives an empty list.

    Raises:
        StorageError: the local folder does not exist, or a folder in it may not be read.
    """
    if is_remote(url):
        return objects(url).list_files(url)
    root = Path(url)
    if not root.is_dir():
        raise StorageError(f"{url}: there is no such folder")
    paths = (Path(folder) / name for folder, _, names in os.walk(root, onerror=_report) for name in names)
    return sorted(path.relative_to(root).as_posix() for path in paths if not local.is_partial(path))


def delete(url: str) -> None:
    """Remove a file, if it exists."""
    if is_remote(url):
        objects(url).delete(url)
        return
    local.delete(url)


def check_writable(url: str) -> None:
    """Raise StorageError if the folder `url` is not writable, so that long work fails before it starts."""
    probe = join(url, f".write-test-{uuid.uuid4().hex}")
    write_bytes(probe, b"")
    delete(probe)


def remove_partial_files(url: str) -> None:
    """Remove the partial files that killed writers left below a local folder. S3 keeps none."""
    if not is_remote(url):
        local.remove_partial_files(Path(url))


def retry_while_unreachable(action: Callable[[], R], seconds: float) -> R:
    """Return the result of `action`, retried with back-off on UnreachableError for `seconds` in total.

    The action must be idempotent. Any other error, such as refused credentials, is raised immediately.
    """
    end = time.monotonic() + seconds
    wait = 0.5
    while True:
        try:
            return action()
        except UnreachableError as error:
            if time.monotonic() + wait > end:
                raise
            log.warning("%s (retrying for another %.0f s)", error, end - time.monotonic())
        time.sleep(wait)
        wait = min(5.0, 2 * wait)


def _report(error: OSError) -> None:
    """Raise the error of a folder that cannot be listed, unless it was just deleted; by default it seems empty."""
    if not isinstance(error, FileNotFoundError):
        explain(error.filename, error)

"""Bytes in local folders and in S3, behind one set of functions.

A URL is a local path or `s3://bucket/key`. Errors that a user can mend (no such bucket, refused credentials, a missing
folder) are `StorageError`s with one line that says what to do; a missing file is a `MissingFileError`.
"""

import contextlib
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, TypeVar

from cluster.storage.errors import MissingFileError, StorageError, UnreachableError

R = TypeVar("R")

logger = logging.getLogger(__name__)


def is_s3(url: str) -> bool:
    """Whether `url` names something in S3. Other schemes than `s3://` raise StorageError."""
    scheme, separator, _ = url.partition("://")
    if separator and scheme != "s3":
        raise StorageError(f"{url}: {scheme}:// is not supported; give a local folder or s3://bucket/prefix")
    return bool(separator)


def join(url: str, *parts: str) -> str:
    """`url` with `parts` below it, joined by `/`."""
    tail = "/".join(part.strip("/") for part in parts if part.strip("/"))
    base = url.rstrip("/")
    return f"{base}/{tail}" if tail else base or "/"


def read_bytes(url: str) -> bytes:
    """The whole content; MissingFileError if there is none."""
    if is_s3(url):
        from cluster.storage import s3

        return s3.read_bytes(url)
    try:
        return Path(url).read_bytes()
    except OSError as error:
        _explain(url, error)


def write_bytes(url: str, data: bytes) -> None:
    """Write `data` so that a reader sees either all of it or what was there before, whenever a process may die."""
    if is_s3(url):
        from cluster.storage import s3

        s3.write_bytes(url, data)
        return
    with _replacing(url) as partial, partial.open("wb") as file:
        file.write(data)


def read_range(url: str, start: int, length: int) -> bytes:
    """At most `length` bytes from offset `start`; fewer only where the file ends."""
    if is_s3(url):
        from cluster.storage import s3

        return s3.read_range(url, start, length)
    try:
        with Path(url).open("rb") as file:
            file.seek(start)
            return file.read(length)
    except OSError as error:
        _explain(url, error)


def create(url: str, data: bytes) -> bool:
    """Write `data` if there is nothing at `url` yet: of all who try at once, exactly one is told True."""
    if is_s3(url):
        from cluster.storage import s3

        return s3.write_if(url, data, None) is not None
    path = Path(url)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        _sync(partial)
        os.link(partial, path)  # fails where the name is taken
        _sync(path.parent)
    except FileExistsError:
        return False
    except OSError as error:
        _explain(url, error)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return True


def upload(path: Path, url: str) -> None:
    """Copy a local file to `url`, as atomically as `write_bytes`."""
    if is_s3(url):
        from cluster.storage import s3

        s3.upload(path, url)
        return
    with _replacing(url) as partial:
        shutil.copyfile(path, partial)


def download(url: str, path: Path) -> None:
    """Copy `url` to the local file `path`, atomically. From S3: ranged reads that resume where a connection broke, of
    one version of the object (by its ETag), with the length checked."""
    with _replacing(str(path)) as partial:
        if is_s3(url):
            from cluster.storage import s3

            s3.download(url, partial)
            return
        try:
            shutil.copyfile(url, partial)
        except OSError as error:
            _explain(url, error)


def size(url: str) -> int:
    """Length in bytes; MissingFileError if there is none."""
    if is_s3(url):
        from cluster.storage import s3

        return s3.size(url)
    try:
        return Path(url).stat().st_size
    except OSError as error:
        _explain(url, error)


def exists(url: str) -> bool:
    """Whether a file (not a folder) is there. A missing bucket or refused credentials raise StorageError."""
    try:
        size(url)
    except MissingFileError:
        return False
    return is_s3(url) or Path(url).is_file()


def list_files(url: str) -> list[str]:
    """Paths of all files below the folder `url`, relative to it, with `/`, sorted; unfinished local writes left out.

    A local folder that does not exist raises StorageError; in S3 there are no folders, so the list is empty.
    """
    if is_s3(url):
        from cluster.storage import s3

        return s3.list_files(url)
    root = Path(url)
    if not root.is_dir():
        raise StorageError(f"{url}: there is no such folder")
    paths = (Path(folder) / name for folder, _, names in os.walk(root) for name in names)
    return sorted(path.relative_to(root).as_posix() for path in paths if not _is_partial(path))


def delete(url: str) -> None:
    """Remove a file; nothing happens if there is none."""
    if is_s3(url):
        from cluster.storage import s3

        s3.delete(url)
        return
    try:
        Path(url).unlink(missing_ok=True)
    except OSError as error:
        _explain(url, error)


def check_writable(url: str) -> None:
    """Raise StorageError now, rather than after long work, if nothing can be written under the folder `url`."""
    probe = join(url, f".write-test-{uuid.uuid4().hex}")
    write_bytes(probe, b"")
    delete(probe)


def remove_partial_files(url: str) -> None:
    """Remove what writers that were killed left under a local folder (S3 keeps no such leftovers)."""
    if is_s3(url) or not Path(url).is_dir():
        return
    for folder, _, names in os.walk(url):
        for name in names:
            if _is_partial(Path(name)):
                (Path(folder) / name).unlink(missing_ok=True)


def patiently(action: Callable[[], R], seconds: float, stop: threading.Event | None = None) -> R:
    """What `action` returns, tried again and again while storage is UnreachableError, for `seconds` in all or until `stop`.

    What the action does must be repeatable. Any other mistake, such as refused credentials, is raised at once.
    """
    end = time.monotonic() + seconds
    wait = 0.5
    while True:
        try:
            return action()
        except UnreachableError as error:
            if time.monotonic() + wait > end or (stop is not None and stop.is_set()):
                raise
            logger.warning("%s (trying for %.0f s more)", error, end - time.monotonic())
        time.sleep(wait)
        wait = min(5.0, 2 * wait)


def _is_partial(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".partial")


@contextlib.contextmanager
def _replacing(url: str) -> Iterator[Path]:
    """A file beside `url` that takes its name, synced to disk, when the block ends well."""
    path = Path(url)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    except OSError as error:
        _explain(url, error)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _explain(url: str, error: OSError) -> NoReturn:
    if isinstance(error, FileNotFoundError):
        raise MissingFileError(f"{url}: there is no such file") from error
    raise StorageError(f"{url}: {error.strerror or error}") from error

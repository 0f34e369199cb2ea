"""Open one input file for reading, whether it is local or in S3, and notice when reading fails."""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage import os_errors
from cluster.storage.errors import UnreachableError
from cluster.storage.scratch import scratch_folder
from preprocessing.clip import RejectedInputError, TransientError


@contextlib.contextmanager
def open_input(url: str) -> Iterator[BinaryIO]:
    """Open a file for reading bytes. An S3 object is first downloaded to an unnamed temporary file.

    Raises:
        RejectedInputError: this user may not read the file, or it is no file that can be read.
        TransientError: the file cannot be read at the moment.
        UserError: this machine is at fault; or the object is no longer in the bucket, or access is denied.
    """
    try:
        if storage.is_remote(url):
            with scratch_folder() as folder:
                # It stays readable after the folder is deleted, and leaves nothing behind.
                file = storage.open_file(copy_input(url, folder / "input"))
        else:
            file = storage.open_file(url)
    except OSError as error:
        raise reading_error(url, error) from error
    with file:
        yield file


def copy_input(url: str, path: Path) -> Path:
    """Copy an object from S3 to the file `path`, and return that.

    Raises:
        TransientError: it cannot be read at the moment.
        UserError: it is no longer in the bucket, or access is denied.
    """
    try:
        storage.download(url, path)
    except UnreachableError as error:
        raise TransientError(str(error)) from error
    return path


class WatchedFile(io.RawIOBase):
    """A file that remembers why reading failed, because libav may report that as an error in the video."""

    def __init__(self, file: BinaryIO) -> None:
        self._source = file
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise the error that explains it if reading the file failed; see `reading_error`."""
        if self._error is not None:
            raise reading_error(getattr(self._source, "name", "the input"), self._error) from self._error

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes."""
        return bytes(self._guard(self._source.read, size))

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to an offset."""
        return int(self._guard(self._source.seek, offset, whence))

    def tell(self) -> int:
        """Return the offset."""
        return self._source.tell()

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def _guard(self, operation: Any, *args: int) -> Any:
        try:
            return operation(*args)
        except OSError as error:
            self._error = self._error or error
            raise


def reading_error(path: object, error: OSError) -> Exception:
    """Return what the failure to open or read an input means for it, as described for `open_input`."""
    cause = os_errors.cause_of(error, of_input=True)
    problem = error.strerror or str(error)
    folder = Path(str(path)).parent
    if cause == "input" and os.access(folder, os.X_OK):  # otherwise it is the folder that may not be entered
        return RejectedInputError("the file cannot be read", problem)
    if cause in ("input", "machine"):
        try:
            os_errors.explain(path, error)
        except UserError as explained:
            return explained
    return TransientError(f"{path}: {problem}")

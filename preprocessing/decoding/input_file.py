"""Open one input file for reading, whether it is local or in S3, and notice when reading fails."""

import contextlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from cluster.storage import api as storage
from cluster.storage.errors import UnreachableError
from preprocessing.clip import TransientError


@contextlib.contextmanager
def open_input(url: str) -> Iterator[BinaryIO]:
    """Open a file for reading bytes. An S3 object is first downloaded to an unnamed temporary file.

    Raises:
        TransientError: the file cannot be read at the moment.
        UserError: the object is no longer in the bucket, or access is denied.
    """
    try:
        if storage.is_s3(url):
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder) / "input"
                storage.download(url, copy)
                file = copy.open("rb")  # stays readable after the folder is deleted, and leaves nothing behind
        else:
            file = open(url, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise TransientError(f"{url}: {error.strerror or error}") from error
    except UnreachableError as error:
        raise TransientError(str(error)) from error
    with file:
        yield file


class WatchedFile(io.RawIOBase):
    """A file that remembers why reading failed, because libav may report that as an error in the video."""

    def __init__(self, file: BinaryIO) -> None:
        self._source = file
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise TransientError if reading the file failed."""
        if self._error is not None:
            raise TransientError(f"reading failed: {self._error.strerror or self._error}") from self._error

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

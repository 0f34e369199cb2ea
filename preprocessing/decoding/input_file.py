"""Open one input file for reading, whether it is local or in S3."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

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
                # It stays readable after the folder is deleted, and leaves nothing behind.
                file = storage.open_file(copy_input(url, Path(folder) / "input"))
        else:
            file = storage.open_file(url)
    except OSError as error:
        raise TransientError(f"{url}: {error.strerror or error}") from error
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

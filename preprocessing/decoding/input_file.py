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

"""Open one input file for reading, whether it is local or in S3."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

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
        if storage.is_s3(url):
            with scratch_folder() as folder:
                copy = folder / "input"
                storage.download(url, copy)
                file = copy.open("rb")  # stays readable after the folder is deleted, and leaves nothing behind
        else:
            file = open(url, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise reading_error(url, error) from error
    except UnreachableError as error:
        raise TransientError(str(error)) from error
    with file:
        yield file


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

"""Temporary folders and files: new, readable by this user only, removed at the end. The user need not have a name."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from cluster.storage import os_errors
from cluster.storage.errors import MachineError

REMEDY = "set TMPDIR to a folder that this user can write, on a disk with enough space"


def scratch_root() -> str:
    """Return the folder in which temporary ones are made.

    Raises:
        MachineError: neither TMPDIR nor the usual folders can be written.
    """
    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:
        raise MachineError(f"no folder for temporary files can be written ({error.strerror}); {REMEDY}") from error


@contextlib.contextmanager
def scratch_folder(prefix: str = "vdsm-") -> Iterator[Path]:
    """Make a folder for the block.

    Raises:
        MachineError: it cannot be made, or there is no space in it.
    """
    with (
        os_errors.explained(scratch_root(), REMEDY),
        tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name,
    ):
        yield Path(name)


def lasting_folder(prefix: str) -> "tempfile.TemporaryDirectory[str]":
    """Make a folder that lasts as long as the object that is returned. Raise MachineError if it cannot be made."""
    with os_errors.explained(scratch_root(), REMEDY):
        return tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)


@contextlib.contextmanager
def scratch_file() -> Iterator[BinaryIO]:
    """Open a file without a name, which disappears with this process, however that ends.

    Raises:
        MachineError: it cannot be made, or there is no space in it.
    """
    with os_errors.explained(scratch_root(), REMEDY), tempfile.TemporaryFile() as file:
        yield cast(BinaryIO, file)


def home() -> Path:
    """Return the home folder of this user, or, if there is none, a path at which none is.

    In a container, a user can have neither an entry in the list of users nor the variable HOME. Libraries such as Ray
    fail then, so the variable is set.
    """
    try:
        return Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/nonexistent"
        return Path("/nonexistent")

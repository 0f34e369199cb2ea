"""Files that are opened by a known name in a folder where others may write: locks, and logs that are appended to."""

import errno
import json
import os
import stat
from pathlib import Path
from typing import BinaryIO, NoReturn

from cluster.storage.errors import StorageError
from cluster.storage.os_errors import explain


def open_own_file(path: Path) -> BinaryIO:
    """Open a file for reading and appending. It is created if it does not exist, and not emptied if it does.

    Raises:
        StorageError: it cannot be opened, is no regular file, or is a link, so that another file would be written to.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            _refuse(path, "a symbolic link")
        explain(path, error)
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(handle)
        _refuse(path, "a second name of another file" if stat.S_ISREG(status.st_mode) else "not a regular file")
    return os.fdopen(handle, "a+b")


def append_line(path: Path, line: str) -> None:
    """Append a line to a file of JSON lines, in place of a part of a line that a killed process left at its end.

    Raises:
        StorageError: the file cannot be opened, or is not such a file.
        OSError: it cannot be written, for example because the disk is full.
    """
    with open_own_file(path) as file:
        drop_torn_line(file, path)
        file.write(line.encode() + b"\n")


def drop_torn_line(file: BinaryIO, path: Path) -> None:
    """Remove the part of a line at the end of a file of JSON lines; a complete record gets its line break instead.

    What is appended to a part of a line would be lost with it.

    Raises:
        StorageError: the last line is no part of a record, so that this may be a file of another kind.
    """
    if not file.seek(0, os.SEEK_END):
        return
    file.seek(-1, os.SEEK_END)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    content = file.read()
    start = content.rfind(b"\n") + 1
    # After a power failure, bytes that were not yet written are zero.
    line = content[start:].strip(b"\0")
    if line and not line.startswith(b"{"):
        raise StorageError(f"{path}: its last line is not JSON; delete that line, or choose another file")
    if _is_record(content[start:]):
        file.write(b"\n")
    else:
        file.truncate(start)
    file.flush()


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _refuse(path: Path, kind: str) -> NoReturn:
    raise StorageError(f"{path} is {kind}, and is not written to; delete it and rerun")

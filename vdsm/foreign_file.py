"""Opening files that may come from anywhere: a pipe or a device in the place of a file could block or never end."""

import errno
import os
import stat
import zipfile
from pathlib import Path
from typing import IO, BinaryIO


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading, as `open` does.

    Raises:
        ValueError: it is a pipe, a socket or a device; the message names file and remedy.
        OSError: it cannot be opened.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would wait for its writer
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise ValueError(f"{path}: is not a regular file but a pipe, a socket or a device; replace or remove it")
        return open(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def is_unpacked_zip(file: Path | IO[bytes]) -> bool:
    """Return whether a file is a zip that holds its members as they are, as `torch.save` writes it.

    Packed ones can unpack to a thousand times their bytes.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError):
        return False

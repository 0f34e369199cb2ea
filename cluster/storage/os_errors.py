"""From errors of the operating system to one-line errors with a remedy. They are sorted here and nowhere else.

An error has one of three causes. An *input* that cannot be read is rejected. A fault of *this machine* (a full disk, a
missing permission) ends the work at once. *Storage* that fails for a moment is retried.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Literal, NoReturn

from cluster.errors import UserError, first_line
from cluster.storage.errors import MachineError, MissingFileError, StorageError, UnreachableError

Cause = Literal["input", "machine", "storage"]

_OTHER_FOLDER = "choose another folder"
_NO_LOCKS = f"the file system may lack file locks, which are needed; {_OTHER_FOLDER}"
_REMEDIES = {
    errno.ENOSPC: f"free space on this disk, or {_OTHER_FOLDER}",
    errno.EDQUOT: f"delete files, or {_OTHER_FOLDER}",
    errno.EFBIG: f"raise the limit of the shell (ulimit -f) or of the file system, or {_OTHER_FOLDER}",
    errno.EROFS: f"mount it for writing, or {_OTHER_FOLDER}",
    errno.EACCES: f"grant this user ({{user}}) access, or {_OTHER_FOLDER}",
    errno.EPERM: f"grant this user ({{user}}) access, or {_OTHER_FOLDER}",
    errno.EMFILE: "raise the limit with `ulimit -n 65536` in the shell that starts the work",
    errno.ENFILE: "end other programs, or raise fs.file-max of this machine",
    errno.ENOMEM: "lower the sizes that were set, end other programs, or use a machine with more memory",
    errno.ENOLCK: _NO_LOCKS,
    errno.ENOSYS: _NO_LOCKS,
    errno.EOPNOTSUPP: _NO_LOCKS,
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ELOOP: "name the file or folder itself, not a link",
    errno.EEXIST: "a file is where a folder is needed; remove it, or choose another path",
}
"""Faults of this machine, or of a path that the user gave, with their remedies."""
_OF_STORAGE = frozenset(
    {
        errno.EIO, errno.ESTALE, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ETIMEDOUT, errno.ENOTCONN,
        errno.EREMOTEIO, errno.ECONNREFUSED, errno.ECONNRESET,
        errno.ECONNABORTED, errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN,
        errno.EHOSTUNREACH, errno.ENOLINK, errno.ECOMM, errno.EPROTO, errno.ENODEV, errno.ESHUTDOWN,
    }
)  # fmt: skip
"""A disk or a network file system that may recover."""
_OF_INPUT = frozenset(
    {
        errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR, errno.ENXIO, errno.EINVAL,
        errno.ESPIPE, errno.EOVERFLOW, errno.EBADMSG, errno.EUCLEAN, errno.EILSEQ,
    }
)  # fmt: skip
"""Errors of opening or reading one input file that are due to this file."""


def cause_of(error: OSError, *, of_input: bool = False) -> Cause | None:
    """Return the cause of an error, or None if it is none of the three.

    Args:
        error: from the operating system.
        of_input: whether one input file was opened or read, which may itself be at fault.
    """
    if of_input and error.errno in _OF_INPUT:
        return "input"
    if error.errno in _REMEDIES:
        return "machine"
    return "storage" if error.errno in _OF_STORAGE else None


def explain(path: object, error: OSError, remedy: str = "") -> NoReturn:
    """Raise the StorageError that corresponds to an error at `path`.

    Args:
        path: what was read or written.
        error: from the operating system.
        remedy: replaces the general remedy where another folder is to be chosen, such as the variable that names it.
    """
    if isinstance(error, FileNotFoundError):
        raise MissingFileError(f"{path}: there is no such file") from error
    cause, problem = cause_of(error), error.strerror or str(error)
    if cause == "machine":
        general = _REMEDIES[error.errno or 0].format(user=f"uid {os.getuid()}")
        raise MachineError(f"{path}: {problem}; {general.replace(_OTHER_FOLDER, remedy or _OTHER_FOLDER)}") from error
    kind = UnreachableError if cause == "storage" else StorageError
    raise kind(f"{path}: {problem}") from error


@contextlib.contextmanager
def explained(path: object, remedy: str = "") -> Iterator[None]:
    """Turn faults of this machine within the block, also those behind other exceptions, into errors that name `path`.

    An error that names another file keeps that name. All other exceptions pass.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        fault = fault_in(error)
        if fault is None:
            raise
        named = fault.filename or path
        explain(named, fault, remedy if str(named).startswith(str(path)) else "")


def fault_in(error: BaseException) -> OSError | None:
    """Return the error by which this machine is at fault for an exception: itself, or one that it was raised from.

    Libraries report a full disk as an error of their own: `torch.save` as a RuntimeError, Ray as the failure of a task;
    and so they do with memory that cannot be allocated.
    """
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in seen:
        # Subclasses in libraries have numbers of their own: 1 of an ssl.SSLError is not EPERM.
        if isinstance(current, OSError) and type(current).__module__ == "builtins" and cause_of(current) == "machine":
            return current
        if _is_out_of_memory(current):
            return OSError(errno.ENOMEM, first_line(current).rpartition("Allocator: ")[2], "memory")
        seen.append(current)
        following = getattr(current, "cause", None) or current.__cause__
        if following is None and not current.__suppress_context__:
            following = current.__context__
        current = following if isinstance(following, BaseException) else None
    return None


def _is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory could not be allocated, by Python, numpy or torch."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)

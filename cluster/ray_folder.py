"""The folder of a local Ray: new, of this user only, removed at the end; and short enough for the paths of sockets.

By default it would be one that all users of the machine share, and that Ray lets all of them write.
"""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cluster.errors import UserError
from cluster.storage import os_errors
from cluster.storage.scratch import scratch_root

REMEDY = "set RAY_TMPDIR to a folder that this user can write, on a local disk with enough space"
MIN_FREE_BYTES = 20_000_000
"""Space that the logs of a Ray that starts may take; without it, one of its processes fails, minutes later."""
_LONGEST_SOCKET = "/r/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""What is appended to the folder at most; the last number is a process ID."""
_MAX_SOCKET_BYTES = 107


@contextlib.contextmanager
def ray_folder() -> Iterator[Path]:
    """Make a folder for the block, in `$RAY_TMPDIR` or the folder for temporary files.

    Raises:
        UserError: it cannot be made, or its path is too long.
    """
    base = Path(os.environ.get("RAY_TMPDIR") or scratch_root()).absolute()
    with contextlib.ExitStack() as stack:
        with os_errors.explained(base, REMEDY):
            base.mkdir(parents=True, exist_ok=True)
            temporary = tempfile.TemporaryDirectory(prefix="ray-", dir=base, ignore_cleanup_errors=True)
            folder = Path(stack.enter_context(temporary))
            if shutil.disk_usage(folder).free < MIN_FREE_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(base))
        check_socket_length(folder)
        yield folder


def check_socket_length(folder: Path) -> None:
    """Raise UserError if the path of a socket that Ray opens below `folder` is longer than Linux allows."""
    excess = len(os.fsencode(f"{folder}{_LONGEST_SOCKET}")) - _MAX_SOCKET_BYTES
    if excess > 0:
        raise UserError(
            f"{folder} is {excess} characters too long for the sockets of Ray; set RAY_TMPDIR (or TMPDIR) to a shorter "
            "path on a local disk, such as /tmp"
        )

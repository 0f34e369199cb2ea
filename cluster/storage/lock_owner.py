"""What the file of a lock holds: the process that owns it, a claim of its own, and what it does."""

import json
import os
import socket
import uuid
from pathlib import Path
from typing import Any, NamedTuple

from cluster.errors import one_line

_MAX_PID = 1 << 31
_MAX_USE = 60
"""Characters of what another process says that it does."""


class LockOwner(NamedTuple):
    """A process, among all processes of all machines."""

    host: str
    boot: Any
    space: Any
    pid: int
    use: str
    """What it does with the folder; empty if the file does not say."""

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return f"process {self.pid} on {self.host}" if self.pid else "another process"


def this_process(use: str = "") -> LockOwner:
    """Return this process as an owner."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    space = Path("/proc/self/ns/pid")
    return LockOwner(
        host=socket.gethostname(),
        boot=boot.read_text().strip() if boot.exists() else "",
        space=str(space.readlink()) if space.exists() else "",
        pid=os.getpid(),
        use=use,
    )


def lock_content(token: str = "", use: str = "") -> bytes:
    """Return the content of the lock of this process, with its claim `token`; each call returns another."""
    # The ETag is a hash of the content.
    content = {"owner": this_process(use)._asdict(), "claim": token or uuid.uuid4().hex, "write": uuid.uuid4().hex}
    return json.dumps(content).encode()


def read_token(content: bytes) -> str:
    """Return the claim in the content of a lock; empty if it holds none."""
    try:
        return str(json.loads(content)["claim"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""


def find_owner(content: bytes) -> LockOwner:
    """Return the owner in the content of a lock; one without a number if it holds none."""
    try:
        owner: dict[str, Any] = json.loads(content)["owner"]
        use, pid = owner.get("use"), int(owner["pid"])
        if not 0 < pid < _MAX_PID:
            raise ValueError
        return LockOwner(
            host=str(owner["host"]), boot=owner["boot"], space=owner["space"], pid=pid,
            use=one_line(use)[:_MAX_USE] if isinstance(use, str) else "",
        )  # fmt: skip
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        return LockOwner("an unknown machine", None, None, 0, "")


def is_dead(owner: LockOwner) -> bool:
    """Return whether the owner was a process visible to this one, and has ended."""
    here = this_process()
    if not here.boot or owner[:3] != here[:3]:
        return False
    return not Path(f"/proc/{owner.pid}").exists()

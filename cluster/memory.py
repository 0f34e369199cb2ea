"""The memory of this machine, or of its container."""

import re
from pathlib import Path
from typing import Literal


def memory_bytes(kind: Literal["total", "available"] = "total") -> int | None:
    """Return the memory in bytes, all of it or what is available now; None if the system does not report it."""
    found = []
    try:
        line = re.search(rf"Mem{kind.capitalize()}:\s+(\d+) kB", Path("/proc/meminfo").read_text())
        found += [int(line[1]) * 1024] if line else []
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        found += [int(limit)] if limit.isdecimal() else []
    except OSError:
        pass  # no Linux, or no limit
    return min(found, default=None)

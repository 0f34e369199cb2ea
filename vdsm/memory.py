"""How this process asks the system for memory."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""`M_TRIM_THRESHOLD` and `M_MMAP_THRESHOLD` of glibc's malloc.h."""

TUNABLES = "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1"
"""`GLIBC_TUNABLES` with which a process that computes on the CPU should start. Large blocks then come in pages of 2 MB,
where the system gives them on request. And all threads share one heap: in one of its own, a thread other than the first
could not keep freed blocks of over 64 MB.
"""


def keep_freed_memory() -> bool:
    """Keep freed memory for the next tensor instead of giving it back to the system.

    glibc maps every block of 32 MB or more anew and unmaps it when it is freed, so that a network on the CPU whose
    activations are that large spends much of its time on page faults, and in a virtual machine most of it. What the
    process holds then stays at its peak.

    Returns:
        Whether it was done; without glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, 1 << 30)) and bool(mallopt(_TRIM_THRESHOLD, (1 << 31) - 1))

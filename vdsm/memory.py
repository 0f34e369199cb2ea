"""Settings of glibc's memory allocator for computation on the CPU."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""`M_TRIM_THRESHOLD` and `M_MMAP_THRESHOLD` of glibc's malloc.h."""

TUNABLES = "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1"
"""`GLIBC_TUNABLES` with which a process that computes on the CPU should start. Large blocks then use huge pages of 2 MB
if the system offers them on request. All threads share one heap: with a heap per thread, threads other than the first
could not keep freed blocks of more than 64 MB.
"""


def keep_freed_memory() -> bool:
    """Keep freed memory for later tensors instead of returning it to the system.

    glibc maps every block of 32 MB or more separately and unmaps it when it is freed. A network on the CPU with
    activations of that size then spends much of its time on page faults, and most of it in a virtual machine. With this
    setting, the memory of the process stays at its peak.

    Returns:
        Whether the setting took effect; without glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, 1 << 30)) and bool(mallopt(_TRIM_THRESHOLD, (1 << 31) - 1))

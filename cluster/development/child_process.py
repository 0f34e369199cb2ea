"""Child processes of the development servers."""

import contextlib
import ctypes
import signal
import subprocess

TIMEOUT_S = 10.0
"""Time that a process has to end by itself, in seconds."""


def die_with_parent() -> None:
    """Have Linux terminate this process when its parent dies, whatever the cause; for `preexec_fn`."""
    set_parent_death_signal = 1
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def terminate(process: "subprocess.Popen[bytes]") -> None:
    """Terminate a child process, kill it if it is still running after TIMEOUT_S, and wait for its exit."""
    process.terminate()
    try:
        process.wait(TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

"""Child processes of the development servers."""

import subprocess

TIMEOUT_S = 10.0
"""Time that a process has to end by itself, in seconds."""


def terminate(process: "subprocess.Popen[bytes]") -> None:
    """Terminate a child process, kill it if it is still running after TIMEOUT_S, and wait for its exit."""
    process.terminate()
    try:
        process.wait(TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

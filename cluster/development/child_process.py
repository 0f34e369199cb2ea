"""Child processes of the development servers."""

import subprocess


def terminate(process: "subprocess.Popen[bytes]", timeout_s: float = 10.0) -> None:
    """Terminate a child process, kill it if it is still running after `timeout_s` seconds, and wait for its exit."""
    process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

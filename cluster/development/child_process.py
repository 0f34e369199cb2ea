"""Programs that we start beside ourselves."""

import subprocess


def end(process: "subprocess.Popen[bytes]", patience_s: float = 10.0) -> None:
    """Ask a child to end, and make it after `patience_s` seconds; it is gone when this returns."""
    process.terminate()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

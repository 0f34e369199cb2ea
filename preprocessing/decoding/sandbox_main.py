"""The process in which `sandbox` decodes untrusted inputs: `python -m preprocessing.decoding.sandbox_main OPENER`.

OPENER is the `module:function` that opens the source. The process reads one input after another from standard input and
writes their clips to standard output, until standard input ends. The kernel kills it when it exceeds its CPU time or
when its parent dies.
"""

import contextlib
import ctypes
import importlib
import logging
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from cluster.errors import UserError
from cluster.storage.errors import UnreachableError
from preprocessing.clip import Item, RejectedInputError, Source, TransientError, check
from preprocessing.decoding.messages import ReadInto, receive, send, send_clip

SCARCE = 0.6
"""An input that fails after it took this share of the memory left to it is assumed to have run out of memory."""


def main(opener: str) -> None:
    """Serve until standard input ends.

    Args:
        opener: `module:function`, from this process's own command line; opens the source.
    """
    _die_with_parent()
    # Prevent output that a library prints from entering the message stream.
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb", buffering=1 << 16)
    os.dup2(2, 1)
    setup, _ = receive(_reader(requests))
    if os.getppid() != setup["parent"]:
        return
    try:
        source = _resolve(opener)(setup["source"])
    except UserError as error:
        send(replies, {"kind": "user error", "text": str(error)})
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (setup["bytes"], setup["bytes"]))
    send(replies, {"kind": "ready"})
    # Decoders log every broken packet; whatever matters is raised as an exception.
    logging.disable(logging.CRITICAL)
    with open(os.devnull, "wb") as devnull:
        os.dup2(devnull.fileno(), 1)
        os.dup2(devnull.fileno(), 2)
    with contextlib.suppress(EOFError):
        while True:
            request, _ = receive(_reader(requests))
            _limit_cpu(setup["seconds"])
            send(replies, _serve(source, Item(**request), replies, setup["seconds"]))


def _resolve(opener: str) -> Callable[[str], Source]:
    module, _, function = opener.partition(":")
    found: Callable[[str], Source] = getattr(importlib.import_module(module), function)
    return found


def _serve(source: Source, item: Item, replies: BinaryIO, seconds: int) -> dict[str, Any]:
    """Send the clips of an input, and return the message that ends them."""
    before = _memory()
    try:
        for clip in source.clips(item):
            check(clip, source)
            send_clip(replies, clip)
            _limit_cpu(seconds)
    except RejectedInputError as error:
        if _was_scarce(before):
            return {"kind": "memory"}
        return {"kind": "rejected", "reason": error.reason, "where": error.where}
    except (TransientError, UnreachableError) as error:
        return {"kind": "transient", "text": str(error)}
    except UserError as error:
        return {"kind": "user error", "text": str(error)}
    except MemoryError:
        return {"kind": "memory"}
    except Exception as error:  # an error caused by one input must not stop the others
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}:{frame.lineno}"
        return {"kind": "fault", "type": type(error).__name__, "text": str(error)[:300], "where": where}
    return {"kind": "done"}


def _memory() -> dict[str, int]:
    """Return this process's memory counters from Linux, in bytes: `VmSize`, `VmPeak` (highest), `VmData` and others."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return {line.partition(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith(" kB")}
    return {}


def _was_scarce(before: dict[str, int]) -> bool:
    """Return whether an input took most of the memory left to it; `before` are the counters at its start.

    A decoder whose allocation fails may report invalid data, which would blame the file.
    """
    limit, now = resource.getrlimit(resource.RLIMIT_DATA)[0], _memory()
    if limit == resource.RLIM_INFINITY or not before or not now:
        return False
    return now["VmPeak"] - before["VmSize"] > SCARCE * (limit - before["VmData"])


def _limit_cpu(seconds: int) -> None:
    """Allow this much CPU time from now on; after that the kernel kills this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


def _reader(stream: BinaryIO) -> ReadInto:
    def read(buffer: memoryview, /) -> None:
        data = stream.read(len(buffer))
        if len(data) != len(buffer):
            raise EOFError
        buffer[:] = data

    return read


def _die_with_parent() -> None:
    """Ask the Linux kernel to kill this process when its parent dies, however it dies."""
    set_parent_death_signal = 1
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])

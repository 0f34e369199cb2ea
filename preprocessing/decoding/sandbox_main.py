"""The process in which untrusted inputs are decoded: `python -m preprocessing.decoding.sandbox_main`, started by `isolated`.

It reads an order from its standard input and answers with the clips on its standard output, one input after another,
until the input ends. The kernel ends it when it takes too much CPU time, or when the process that started it dies.
"""

import contextlib
import ctypes
import logging
import os
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, BinaryIO

from cluster.errors import UserError
from cluster.storage.errors import UnreachableError
from preprocessing.clip import Item, RejectedInputError, TransientError, check
from preprocessing.decoding.messages import receive, send, send_clip
from preprocessing.sources import reopen

SCARCE = 0.6
"""Share of the memory left to an input from which on its failure is taken for a lack of memory."""


def main() -> None:
    """Serve until the standard input ends."""
    _die_with_parent()
    # What a library prints must not get between the messages.
    orders, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb", buffering=1 << 16)
    os.dup2(2, 1)
    setup, _ = receive(_reader(orders))
    if os.getppid() != setup["parent"]:
        return
    try:
        source = reopen(setup["source"])
    except UserError as error:
        send(answers, {"kind": "user error", "text": str(error)})
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (setup["bytes"], setup["bytes"]))
    send(answers, {"kind": "ready"})
    # Decoders complain about every broken packet; what matters comes as an exception.
    logging.disable(logging.CRITICAL)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    with contextlib.suppress(EOFError):
        while True:
            order, _ = receive(_reader(orders))
            _limit_cpu(setup["seconds"])
            send(answers, _serve(source, Item(**order), answers, setup["seconds"]))


def _serve(source: Any, item: Item, answers: BinaryIO, seconds: int) -> dict[str, Any]:
    """Send the clips of an input; gives the message that ends them."""
    before = _memory()
    try:
        for clip in source.clips(item):
            check(clip, source)
            send_clip(answers, clip)
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
    except Exception as error:  # one input must not stop the others, whatever its content does to the source
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}:{frame.lineno}"
        return {"kind": "fault", "type": type(error).__name__, "text": str(error)[:300], "where": where}
    return {"kind": "done"}


def _memory() -> dict[str, int]:
    """What Linux says of this process's memory, in bytes: `VmSize`, `VmPeak` (its highest), `VmData` and others."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return {line.partition(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith(" kB")}
    return {}


def _was_scarce(before: dict[str, int]) -> bool:
    """Whether an input that began at `before` took most of what the limit left it: a decoder whose allocation fails
    may say that the data is invalid, which would blame the file."""
    limit, now = resource.getrlimit(resource.RLIMIT_DATA)[0], _memory()
    if limit == resource.RLIM_INFINITY or not before or not now:
        return False
    return now["VmPeak"] - before["VmSize"] > SCARCE * (limit - before["VmData"])


def _limit_cpu(seconds: int) -> None:
    """From now on, so much CPU time; then the kernel ends this process, whatever it is at."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


def _reader(stream: BinaryIO) -> Any:
    def read(into: memoryview) -> None:
        data = stream.read(len(into))
        if len(data) != len(into):
            raise EOFError
        into[:] = data

    return read


def _die_with_parent() -> None:
    """Linux: have the kernel end this process when the one that started it dies, however it dies."""
    set_parent_death_signal = 1
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


if __name__ == "__main__":
    main()

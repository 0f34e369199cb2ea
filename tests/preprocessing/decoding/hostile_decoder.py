"""The decoding process with a source that does, for each input, what its key says: what no real file does reliably."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cluster.storage.errors import UnreachableError
from preprocessing.clip import Clip, Factors, Item, RejectedInputError, TransientError
from preprocessing.decoding import sandbox_main as decode_process

HOARD: list[np.ndarray] = []


class Hostile:
    """`detail` of an item: what happens after two clips."""

    def __init__(self) -> None:
        self.vocabulary = {"action": ["none", "some"]}
        self.factors: Factors = {"angle": "frame"}
        self.untrusted = True

    def items(self) -> list[Item]:
        return []

    def fingerprint(self) -> str:
        return ""

    def clips(self, item: Item) -> Iterator[Clip]:
        yield from (clip(item.key, number) for number in range(2))
        deed(item.detail)
        yield clip(item.key, 2)


def clip(key: str, number: int) -> Clip:
    """A clip that depends on its arguments only."""
    seed = sum(key.encode()) + number
    frames = np.random.default_rng(seed).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    labels = {"action": 1, "angle": [0.5, seed / 3, -1e-9]}
    return Clip(f"{key}-{number}", frames, labels, identity=key, source=key, start_s=number / 3, fps=30000 / 1001)


def deed(what: str) -> None:
    """Do it."""
    name, _, value = what.partition(" ")
    if name == "reject":
        raise RejectedInputError("too odd", "frame 7")
    if name == "spin":
        while True:
            pass
    elif name == "sleep":
        time.sleep(600)
    elif name == "hoard":  # and keep it, as a decoder that leaks
        HOARD.append(np.ones(int(float(value) * 1e6), np.uint8))
    elif name == "segfault":
        ctypes.string_at(0)
    elif name == "abort":
        os.abort()
    elif name == "exit":
        os._exit(int(value))
    elif name == "raise":
        raise ZeroDivisionError("of nothing")
    elif name == "print":
        sys.stdout.write("x" * 100_000)
        sys.stdout.flush()
        os.write(1, b"y" * 100_000)
        os.write(2, b"z" * 100_000)
    elif name == "garble":
        for descriptor in range(3, 20):
            try:
                os.write(descriptor, b"\xff" * 1000)
            except OSError:
                continue
    elif name == "once":  # the first time that this file is missing
        path, _, kind = value.partition(" ")
        if not Path(path).exists():
            Path(path).touch()
            if kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise TransientError("the disk is away") if kind == "disk" else UnreachableError("the server is away")
    elif name:
        raise AssertionError(what)


if __name__ == "__main__":
    decode_process.reopen = lambda order: Hostile()  # type: ignore[assignment]
    decode_process.main()

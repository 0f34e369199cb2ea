"""A source that misbehaves on request, for tests of the decoding process: no real file does so reliably."""

import ctypes
import os
import signal
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cluster.storage.errors import UnreachableError
from preprocessing.clip import Clip, Factors, Item, RejectedInputError, TransientError

HOARD: list[NDArray[np.uint8]] = []
FORGED = {
    "nesting": b'{"kind":' * 50_000,
    "endless": b'{"kind": "clip", "shape": [1e999], "fields": {}}',
    "digits": b'{"kind": "clip", "shape": [99999999999999999999], "fields": {}}',
    "fields": b'{"kind": "clip", "shape": [0, 1, 1, 1], "fields": {"key": [], "labels": 5, "identity": 1,'
    b' "source": null, "start_s": "", "fps": {}}}',
    "kind": b'{"kind": ["clip"]}',
    "silence": b'{"kind": "rejected"}',
    "texts": b'{"kind": "fault", "type": 1, "text": 2, "where": 3}',
}
"""Headers of messages that no decoder of ours would send."""


class HostileSource:
    """Gives three clips per input; after two of them, does what the item's `detail` says."""

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
        misbehave(item.detail)
        yield clip(item.key, 2)


def clip(key: str, number: int) -> Clip:
    """Return a clip that depends only on its arguments."""
    seed = sum(key.encode()) + number
    frames = np.random.default_rng(seed).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    labels = {"action": 1, "angle": [0.5, seed / 3, -1e-9]}
    return Clip(f"{key}-{number}", frames, labels, identity=key, source=key, start_s=number / 3, fps=30000 / 1001)


def misbehave(deed: str) -> None:
    """Do what `deed` says: a word, and for some a value."""
    name, _, value = deed.partition(" ")
    if name == "reject":
        raise RejectedInputError("too odd", "frame 7")
    if name == "spin":
        while True:
            pass
    elif name == "sleep":
        time.sleep(600)
    elif name == "variables":
        raise RejectedInputError(" ".join(sorted(os.environ)))
    elif name == "hoard":  # and keep it, like a decoder that leaks
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
    elif name == "forge":
        header = FORGED[value]
        for descriptor in range(3, 20):
            try:
                os.write(descriptor, struct.pack("<II", len(header), 0) + header)
            except OSError:
                continue
    elif name == "once":  # only if this file does not exist yet
        path, _, kind = value.partition(" ")
        if not Path(path).exists():
            Path(path).touch()
            if kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise TransientError("disk unavailable") if kind == "disk" else UnreachableError("server unavailable")
    elif name:
        raise AssertionError(deed)


def open_hostile_source(_serialized: str) -> HostileSource:
    """Open the source, in the decoding process."""
    return HostileSource()

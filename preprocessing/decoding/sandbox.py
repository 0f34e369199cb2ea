"""Decoding in another process, which may crash, hang or eat memory without harm to the job.

The process is kept for many inputs, since starting it takes half a second. What goes wrong with it may be the fault of
an input that it had before; so a failure counts against an input only in a process that is fresh.
"""

import dataclasses
import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cluster.errors import UserError
from preprocessing.clip import Clip, Item, RejectedInputError, TransientError
from preprocessing.decoding.messages import clip_of, receive, send
from preprocessing.recipe import ShardsConfig

log = logging.getLogger(__name__)

START_S = 120.0
"""How long the process may take to start, on the most crowded machine."""
_LOOK_S = 1.0
_PIPE_BYTES = 1 << 20
_SET_PIPE_SIZE = 1031  # fcntl.F_SETPIPE_SZ of Linux


class SandboxFailedError(Exception):
    """The process ended, or had to be ended, while it decoded an input."""

    def __init__(self, reason: str, *, conclusive: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.conclusive = conclusive
        """Whether the input must be the cause: the process was fresh, and nobody else killed it."""


class DecodeProcess:
    """Gives the clips of inputs; starts its process when there is none.

    Args:
        source: which source, as `preprocessing.sources.order` tells.
        limits: how much time and memory an input may take.
    """

    program = "preprocessing.decoding.sandbox_main"
    """The module that is run."""

    def __init__(self, source: str, limits: ShardsConfig) -> None:
        self._setup = {
            "source": source, "parent": os.getpid(),
            "seconds": limits.decode_seconds, "bytes": limits.decode_mb * 1_000_000,
        }  # fmt: skip
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._fresh = True

    def clips(self, item: Item) -> Iterator[Clip]:
        """The clips of an input.

        Raises:
            RejectedInputError: the input is bad.
            TransientError: it could not be read.
            SandboxFailedError: the process did not live through it; the next call starts another.
            UserError: as the source raised it.
        """
        self._fresh = self._process is None
        process = self._process or self.start()
        kind = "memory"
        try:
            try:
                send(_pipe(process.stdin), dataclasses.asdict(item))
            except BrokenPipeError:
                raise self._death() from None
            while True:
                try:
                    header, payload = receive(self._read)
                    clip = clip_of(header, payload) if header["kind"] == "clip" else None
                except (ValueError, KeyError, TypeError):
                    raise self._failed("the decoder wrote where it should not") from None
                if clip is None:
                    break
                yield clip
            kind = header["kind"]
        finally:
            if kind == "memory":  # or it is still at this input: in either case it is of no use any more
                self.close()
        if kind == "rejected":
            raise RejectedInputError(header["reason"], header["where"])
        if kind == "transient":
            raise TransientError(header["text"])
        if kind == "user error":
            raise UserError(header["text"])
        if kind == "memory":
            raise self._failed(f"decoding needs more than {self._limits.decode_mb} MB of memory")
        if kind == "fault":
            log.warning("%s: unexpected %s at %s: %s", item.path, header["type"], header["where"], header["text"])
            raise RejectedInputError(f"decoding failed with {header['type']}", f"{header['text']} ({header['where']})")

    def start(self) -> subprocess.Popen[bytes]:
        """Start the process; UserError if the source cannot be made there."""
        self._fresh = True
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, sys.path))),
            # One task is one core; and threads of a numeric library would only take memory.
            "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
        }  # fmt: skip
        words = [sys.executable, "-m", self.program]
        with tempfile.TemporaryFile() as errors:
            self._process = process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, bufsize=0, env=environment
            )
            _enlarge(_pipe(process.stdout))
            try:
                send(_pipe(process.stdin), self._setup)
                header, _ = receive(self._read)
            except (SandboxFailedError, BrokenPipeError) as failure:
                process.wait()
                if isinstance(failure, SandboxFailedError) and not failure.conclusive:
                    self.close()
                    raise
                errors.seek(0)
                last = errors.read().decode(errors="replace").strip().splitlines()[-1:] or ["no output"]
                self.close()
                raise RuntimeError(f"the decoding process did not start: {last[0]}") from None
        if header["kind"] == "user error":
            self.close()
            raise UserError(header["text"])
        return process

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _read(self, into: memoryview) -> None:
        """Fill `into` from the process; SandboxFailedError if it dies, or stands still for the time an input may take."""
        assert self._process is not None
        stream = _pipe(self._process.stdout)
        poll = select.poll()
        poll.register(stream, select.POLLIN)
        moved, before = time.monotonic(), -1.0
        while into:
            if not poll.poll(_LOOK_S * 1000):
                now, used = time.monotonic(), _cpu_seconds(self._process.pid)
                if used != before:
                    moved, before = now, used
                elif now - moved > self._limits.decode_seconds:
                    self._process.kill()
                    self._process.wait()
                    raise self._failed(f"decoding stood still for {self._limits.decode_seconds} s")
                continue
            count = stream.readinto(into)  # type: ignore[attr-defined]
            if not count:
                raise self._death()
            into = into[count:]
            moved, before = time.monotonic(), -1.0

    def _death(self) -> SandboxFailedError:
        """Why the process ended."""
        assert self._process is not None
        code = self._process.wait()
        if code == -signal.SIGXCPU:
            return self._failed(f"decoding took more than {self._limits.decode_seconds} s of CPU time for one clip")
        if code in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP):
            return SandboxFailedError("the decoding process was killed from outside", conclusive=False)
        if code < 0:
            return self._failed(f"the decoder crashed ({signal.Signals(-code).name})")
        return self._failed(f"the decoder ended the process (exit code {code})")

    def _failed(self, reason: str) -> SandboxFailedError:
        return SandboxFailedError(reason, conclusive=self._fresh)


def _pipe(stream: object) -> BinaryIO:
    assert stream is not None
    return stream  # type: ignore[return-value]


def _enlarge(stream: BinaryIO) -> None:
    """Let the process run a few clips ahead, where the system allows it."""
    import fcntl

    try:
        fcntl.fcntl(stream, _SET_PIPE_SIZE, _PIPE_BYTES)
    except OSError:
        log.debug("the pipe keeps its size")


def _cpu_seconds(pid: int) -> float:
    """CPU time that a process has used; on systems without /proc the time itself, so that it never seems to stand."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return time.monotonic()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

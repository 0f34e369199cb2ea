"""Decode inputs in a separate process, which may crash, hang or exhaust its memory without harming the job.

The process gets no credentials: inputs in S3 are copied to this machine before it reads them.

Starting the process takes half a second, so it is kept for many inputs. Its failure may be caused by an earlier input;
therefore a failure counts against an input only if the process was fresh.
"""

import dataclasses
import functools
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from cluster.errors import UserError
from cluster.storage.scratch import scratch_file, scratch_folder
from preprocessing.clip import Clip, Item, RejectedInputError, Source, TransientError
from preprocessing.decoding.messages import check_reply, clip_from_message, receive, send

log = logging.getLogger(__name__)

START_S = 120
"""Time for which a process that starts may be idle, in seconds: on a busy machine it may have to wait for a core."""
_POLL_S = 1.0
_PIPE_BYTES = 1 << 20
_SET_PIPE_SIZE = 1031  # fcntl.F_SETPIPE_SZ, Linux only
_ROOT = str(Path(__file__).resolve().parents[2])
INHERITED = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "VDSM_LOG_LEVEL")
"""Variables that the process inherits. The others can hold credentials, as of S3 and of Ray."""


class SandboxFailedError(Exception):
    """The process ended, or had to be killed, while it decoded an input."""

    def __init__(self, reason: str, *, conclusive: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.conclusive = conclusive
        """Whether the input must be the cause: the process was fresh and was not killed from outside."""


class DecodeProcess:
    """Decode inputs in a separate process, which is started when it is first needed.

    Args:
        open_source: a function at the top level of a module; the process calls it to open its source.
        serialized: the argument of `open_source`.
        cpu_seconds: CPU time that the process may use from one clip to the next, in seconds. It may also be idle for
            as long.
        memory_mb: memory that decoding an input may take, in MB (10^6 bytes).
        fetch: copies an input in S3 to a folder, and returns it with the path of the copy.
    """

    def __init__(
        self,
        open_source: Callable[[str], Source],
        serialized: str,
        *,
        cpu_seconds: int,
        memory_mb: int,
        fetch: Callable[[Item, Path], Item] | None = None,
    ) -> None:
        self._fetch = fetch
        self._opener = f"{open_source.__module__}:{open_source.__qualname__}"
        self._setup = {
            "source": serialized, "parent": os.getpid(), "seconds": cpu_seconds, "bytes": memory_mb * 1_000_000,
        }  # fmt: skip
        self._cpu_seconds, self._memory_mb = cpu_seconds, memory_mb
        self._process: subprocess.Popen[bytes] | None = None
        self._fresh = True

    @property
    def pid(self) -> int | None:
        """Process id, or None if the process is not running."""
        return self._process.pid if self._process else None

    def clips(self, item: Item) -> Iterator[Clip]:
        """Decode the clips of an input.

        Raises:
            RejectedInputError: the input is invalid.
            TransientError: the input could not be read.
            SandboxFailedError: the process died or was killed; the next call starts another one.
            UserError: the source raised it.
        """
        if self._fetch is None:
            yield from self._decode(item)
            return
        with scratch_folder("vdsm-input-") as folder:
            yield from self._decode(self._fetch(item, folder))

    def _decode(self, item: Item) -> Iterator[Clip]:
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
                    check_reply(header)
                    clip = clip_from_message(header, payload) if header["kind"] == "clip" else None
                except (ValueError, LookupError, TypeError, OverflowError, RecursionError, MemoryError):
                    raise self._failed("the decoder wrote where it should not") from None
                if clip is None:
                    break
                yield clip
            kind = header["kind"]
        finally:
            if kind == "memory":  # out of memory, or still busy with this input: not reusable in either case
                self.close()
        if kind == "rejected":
            raise RejectedInputError(header["reason"], header["where"])
        if kind == "transient":
            raise TransientError(header["text"])
        if kind == "user error":
            raise UserError(header["text"])
        if kind == "memory":
            raise self._failed(f"decoding needs more than {self._memory_mb} MB of memory")
        if kind == "fault":
            log.warning("%s: unexpected %s at %s: %s", item.path, header["type"], header["where"], header["text"])
            raise RejectedInputError(f"decoding failed with {header['type']}", f"{header['text']} ({header['where']})")

    def start(self) -> subprocess.Popen[bytes]:
        """Start the process.

        Raises:
            UserError: the source cannot be opened there.
            RuntimeError: the process failed to start.
        """
        self._fresh = True
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ} | {
            # Our packages first: the working folder and others may hold modules with their names.
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, [_ROOT, *sys.path]))), "PYTHONSAFEPATH": "1",
            # A task has one core, and the threads of a numeric library would only take memory.
            "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
        }  # fmt: skip
        args = [sys.executable, "-m", "preprocessing.decoding.sandbox_main", self._opener]
        with scratch_file() as errors:
            self._process = process = subprocess.Popen(
                args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, bufsize=0, env=environment
            )
            _enlarge(_pipe(process.stdout))
            try:
                send(_pipe(process.stdin), self._setup)
                header, _ = receive(functools.partial(self._read, idle_seconds=max(START_S, self._cpu_seconds)))
            except (SandboxFailedError, BrokenPipeError) as failure:
                process.wait()
                if isinstance(failure, SandboxFailedError) and not failure.conclusive:
                    self.close()
                    raise
                errors.seek(0)
                last = errors.read().decode(errors="replace").strip().splitlines()[-1:] or ["no output"]
                self.close()
                raise RuntimeError(f"the decoding process failed to start: {last[0]}") from None
        if header["kind"] == "user error":
            self.close()
            raise UserError(header["text"])
        return process

    def close(self) -> None:
        """Kill the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _read(self, buffer: memoryview, idle_seconds: int | None = None) -> None:
        """Fill `buffer` from the process; SandboxFailedError if it dies, or is idle for the time an input may take."""
        assert self._process is not None
        idle_seconds = idle_seconds or self._cpu_seconds
        stream = _pipe(self._process.stdout)
        poll = select.poll()
        poll.register(stream, select.POLLIN)
        active, previous = time.monotonic(), -1.0
        while buffer:
            if not poll.poll(_POLL_S * 1000):
                now, used = time.monotonic(), _cpu_seconds(self._process.pid)
                if used != previous:
                    active, previous = now, used
                elif now - active > idle_seconds:
                    self._process.kill()
                    self._process.wait()
                    raise self._failed(f"decoding stood still for {idle_seconds} s")
                continue
            count = stream.readinto(buffer)  # type: ignore[attr-defined]
            if not count:
                raise self._death()
            buffer = buffer[count:]
            active, previous = time.monotonic(), -1.0

    def _death(self) -> SandboxFailedError:
        """Return the error that explains why the process ended."""
        assert self._process is not None
        code = self._process.wait()
        if code == -signal.SIGXCPU:
            return self._failed(f"decoding took more than {self._cpu_seconds} s of CPU time for one clip")
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
        log.debug("the pipe keeps its default size")


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time a process has used. Without /proc, return the current time, so it never seems idle."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return time.monotonic()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

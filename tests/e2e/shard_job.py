"""`vdsm shard` as a process, with all processes that it starts."""

import hashlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from cluster.storage import api as storage

SETTINGS = ("--shards.target-mb", "0.2", "--source.videos.clip-frames", "8", "--source.videos.size", "32")


class ShardJob:
    """The sharding job on a source of videos, started in `folder`, which is also its home directory."""

    def __init__(self, root: Path, folder: Path, source: str, out: str, *args: str, **variables: str) -> None:
        self.out = out
        self._mark = f"VDSM_TEST={uuid.uuid4()}"
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / f"{uuid.uuid4().hex}.log"
        # Its own home: Ray stores a token there, which would affect later runs of this user.
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "RAY_ADDRESS")}
        environment |= {"HOME": str(folder), "OMP_NUM_THREADS": "1", **dict([self._mark.split("=")]), **variables}
        command = [sys.executable, str(root / "preprocessing" / "shard.py"), "--source.name", "videos"]
        command += ["--source.path", source, *SETTINGS, "--out", out, *args]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def pids(self, kind: str = "") -> list[int]:
        """Return the running processes of the job, or those of one kind: driver, worker, decoder, raylet."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if not entry.name.isdigit() or self._mark.encode() not in (entry / "environ").read_bytes():
                    continue
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # exited meanwhile, or not ours
                continue
            kinds = {
                "driver": int(entry.name) == self.process.pid,
                "worker": line.startswith("ray::_write"),
                "decoder": "preprocessing.decoding.sandbox_main" in line,
                "raylet": "/raylet " in line,
            }
            if not kind or kinds[kind]:
                found.append(int(entry.name))
        return sorted(found)

    def wait_until(self, reached: Callable[[], bool]) -> bool:
        """Wait for a condition. Return False if the job ended first."""
        end = time.monotonic() + 300
        while not reached():
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.005)
        return True

    def shards_done(self) -> int:
        return len(list(Path(self.out).glob("*/*.json")))

    def finish(self, seconds: float = 300) -> int:
        return self.process.wait(seconds)

    def end(self) -> None:
        """Kill all remaining processes of the job."""
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()


def tree(url: str) -> dict[str, str]:
    """Return path -> SHA-256 of every file of a dataset."""
    return {name: hashlib.sha256(storage.read_bytes(f"{url}/{name}")).hexdigest() for name in storage.list_files(url)}

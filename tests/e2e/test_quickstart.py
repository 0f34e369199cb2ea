"""The quickstart as a user runs it: in a process of its own, killed at the worst moments, and rerun."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TINY = """# Everything as small as possible: the test is about the jobs, not about the quality of the model.
source: {figures: {identities: 24}}
model: {num_experts: 4, pose_size: 4, dynamics_size: 4, encoder_channels: [8, 8, 8, 8], decoder_channels: [8, 8, 8, 8],
        encoder_hidden: 16, static_hidden: 8, rnn_width: 16, rnn_layers: 1}
training:
  stage1: {steps: 60, batch_clips: 4}
  stage2: {steps: 6, batch_clips: 4}
  validation_interval: 30
  checkpoint_interval: 5
  log_interval: 5
evaluation: {judge_steps: 5, pairs: 16, probe_clips: 40, grid_clips: 40}
"""


class Quickstart:
    """A folder in which the quickstart can be started any number of times."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.out = folder / "out"
        self.marks: list[str] = []
        """An environment variable for each start, which identifies its processes."""
        self._recipe = folder / "tiny.yaml"
        self._recipe.write_text(TINY)
        self._script = root / "pipeline" / "quickstart.py"
        self._folder = folder

    def start(self) -> subprocess.Popen[str]:
        name, value = "VDSM_TEST", str(uuid.uuid4())
        self.marks.append(f"{name}={value}")
        environment = {key: text for key, text in os.environ.items() if key not in ("PYTHONPATH", "RAY_ADDRESS")}
        self.errors = self._folder / f"stderr-{uuid.uuid4()}"
        with self.errors.open("w") as errors:
            return subprocess.Popen(
                [sys.executable, self._script, "--config", self._recipe, "--out", self.out],
                cwd=self._folder, env={**environment, name: value, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True,
            )  # fmt: skip

    def kill_when(self, reached: Callable[[], bool], event: str) -> None:
        """Start, and `kill -9` as soon as `reached()` is true."""
        process = self.start()
        deadline = time.monotonic() + 500
        while not reached():
            assert process.poll() is None, f"ended before {event}: {self.errors.read_text()}"
            assert time.monotonic() < deadline, f"{event} did not happen: {self.errors.read_text()}"
            time.sleep(0.02)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL

    def finish(self) -> str:
        """Start, wait for the end, and return what it printed."""
        process = self.start()
        printed, _ = process.communicate(timeout=800)
        assert process.returncode == 0, self.errors.read_text()
        return printed

    def processes(self, marks: list[str]) -> dict[int, str]:
        """Return the running processes of the starts with these marks, all descendants included, by pid."""
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                if not entry.name.isdigit():
                    continue
                environment = (entry / "environ").read_bytes()
                if any(mark.encode() in environment for mark in marks):
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it has ended, or belongs to another user
                continue
        return found


@pytest.fixture
def quickstart(tmp_path: Path, root: Path) -> Iterator[Quickstart]:
    instance = Quickstart(tmp_path, root)
    yield instance
    for process in instance.processes(instance.marks):
        os.kill(process, signal.SIGKILL)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.long
@pytest.mark.timeout(2000)  # a minute and a half on two cores of its own
def test_killed_anywhere_it_resumes_and_ends_with_a_complete_report(quickstart: Quickstart) -> None:
    out = quickstart.out
    run = out / "runs" / "figures"

    quickstart.kill_when((out / "data" / "plan.json").exists, "the plan of the shards")
    assert not (out / "data" / "manifest.json").exists()

    quickstart.kill_when(lambda: any(run.glob("checkpoints/stage1-*.pt")), "a checkpoint of stage 1")
    assert (out / "data" / "manifest.json").exists()
    manifest = sha256(out / "data" / "manifest.json")
    assert not (run / "stage1.pt").exists()

    quickstart.kill_when(lambda: "quickstart, phase 3 of 3" in quickstart.errors.read_text(), "the evaluation")
    trained = sha256(run / "stage2.pt")
    assert not (out / "report" / "metrics.json").exists()

    printed = quickstart.finish()
    assert sha256(out / "data" / "manifest.json") == manifest
    assert sha256(run / "stage2.pt") == trained
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    starts = [(event["event"], event["stage"], event["step"] > 0) for event in events if "workers" in event]
    assert starts == [("start", 1, False), ("resume", 1, True)]
    assert json.loads((out / "report" / "metrics.json").read_bytes())
    page = (out / "report" / "report.html").read_text()
    assert "<html" in page
    assert str(out / "report" / "report.html") in printed
    assert all(f"vdsm {command}" in printed for command in ("shard", "train", "evaluate"))

    # Only the last start: the agents of a killed Ray take a minute or two to notice that it is gone.
    last = quickstart.marks[-1:]
    deadline = time.monotonic() + 120
    while quickstart.processes(last) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert quickstart.processes(last) == {}

"""Trainings as processes, and the contents of their run folders."""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from pipeline.training.state import TrainState
from vdsm import checkpoint

STAGES = (36, 24)
"""Steps of the trainings here."""
S3_INTERVAL = 0.1
"""Seconds between two requests for the state of a run in S3."""
LONGER = ["--training.picture-interval", "4"]
"""Slows a run down, so that it does not end before it is disturbed, and changes nothing else."""


def accidents(trials: int, seed: str, last: int = 40) -> list[tuple[random.Random, list[int]]]:
    """Distribute `trials` accidents over runs, at most five each, which takes far less time than a run for each.

    Return, for each run, its random generator and the overall steps at which its accidents happen, in order, one in
    each part of the run. None is after step `last`, because a run must not end before it is disturbed.
    """
    runs = []
    for number, first in enumerate(range(0, trials, 5)):
        dice, count = random.Random(f"{seed}:{number}"), min(5, trials - first)
        length = (last - 4) // count
        runs.append((dice, [4 + length * part + dice.randrange(length) for part in range(count)]))
    return runs


@contextmanager
def started(root: Path, args: list[str], folder: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run the job as a separate process, started by path from another folder; it ends with the block."""
    command = [sys.executable, str(root / "pipeline" / "train.py"), *args]
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
    with (folder / "output.txt").open("a") as output:
        process = subprocess.Popen(
            command,
            env={**variables, **environment},
            cwd=folder,
            stdout=output,
            stderr=output,
            start_new_session=True,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def descendants(pid: int) -> dict[int, str]:
    """Return the processes that `pid` started, directly or indirectly, with their names."""
    parents, names = {}, {}
    for folder in Path("/proc").iterdir():
        try:
            name, fields = (folder / "stat").read_text().rsplit(")", 1)
            parents[int(folder.name)] = int(fields.split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ") or name
        except (OSError, ValueError):
            continue
    found: dict[int, str] = {}
    grown = {pid}
    while grown:
        grown = {child for child, parent in parents.items() if parent in grown}
        found |= {child: names.get(child, "") for child in grown}
    return found


def wait(
    condition: Callable[[], Any],
    what: str,
    seconds: float = 300,
    process: "subprocess.Popen[Any] | None" = None,
    interval: float = 0.04,
) -> None:
    """Wait until `condition` holds; the limit only ends a test that would hang. `process` must run until then.

    A condition that asks S3 takes the time of a core if it is evaluated all the time: `S3_INTERVAL`.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, f"the training ended before {what}"
        assert time.monotonic() < end, f"waited {seconds} s without success until {what}"
        time.sleep(interval)


def lines(url: Path | str) -> list[dict[str, Any]]:
    """Return the records of a file of JSON lines, local or in S3, without the last one if it is being written."""
    try:
        text = storage.read_bytes(str(url)).decode()
    except MissingFileError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def reached(run: Path, overall_step: int) -> Callable[[], bool]:
    return lambda: any(line["overall_step"] >= overall_step for line in lines(run / "metrics.jsonl"))


def events(run: Path | str) -> list[str]:
    return [line["event"] for line in lines(storage.join(str(run), "events.jsonl"))]


def worker_groups(run: Path | str) -> list[dict[str, Any]]:
    """Return the record of each worker group that has started, the newest last."""
    return [line for line in lines(storage.join(str(run), "events.jsonl")) if line["event"] in ("start", "resume")]


def group_sizes(run: Path | str) -> list[int]:
    """Return the size of each worker group that has started, the newest last."""
    return [line["workers"] for line in worker_groups(run)]


def training(run: Path, group: int, overall_step: int) -> Callable[[], bool]:
    """Return a condition: the run's worker group number `group`, from 1, has reached a step."""
    return lambda: len(group_sizes(run)) == group and reached(run, overall_step)()


def workers(run: Path) -> list[dict[str, Any]]:
    """Return process and node of each rank of the current worker group."""
    groups = worker_groups(run)
    return list(groups[-1]["processes"]) if groups else []


def newest(run: Path) -> Path:
    return max((run / "checkpoints").glob("stage*.pt"))


def stage_state(run: Path | str, stage: int, scratch: Path) -> TrainState:
    storage.download(storage.join(str(run), f"stage{stage}.pt"), scratch / "state.pt")
    return TrainState.from_dict(checkpoint.load(scratch / "state.pt"))


def assert_same_weights(run: Path | str, other: Path, scratch: Path) -> None:
    for stage in (1, 2):
        here, there = stage_state(run, stage, scratch), stage_state(other, stage, scratch)
        assert here.weights.keys() == there.weights.keys()
        assert all(torch.equal(here.weights[key], there.weights[key]) for key in here.weights), stage


def trained_on(run: Path | str) -> dict[tuple[int, int], list[str]]:
    """Return the clips of each step of the final run, by (stage, step), in the order of the global batch."""
    folder = storage.join(str(run), "audit")
    found: dict[tuple[int, int], list[str]] = {}
    for name in storage.list_files(folder):  # by stage and step: repeated steps replace lost ones
        ranks: dict[tuple[int, int], dict[int, list[str]]] = {}
        for line in lines(storage.join(folder, name)):
            ranks.setdefault((line["stage"], line["step"]), {})[line["rank"]] = line["clips"]
        found |= {step: [clip for rank in sorted(parts) for clip in parts[rank]] for step, parts in ranks.items()}
    return found


def assert_every_clip_once(run: Path | str, other: Path) -> None:
    """Assert that both runs saw the same clips at each step, and each clip once per epoch."""
    here, there = trained_on(run), trained_on(other)
    assert sorted(here) == [(stage, step) for stage in (1, 2) for step in range(STAGES[stage - 1])]
    assert here == there
    for stage in (1, 2):
        seen = [clip for (at, _), clips in sorted(here.items()) if at == stage for clip in clips]
        size = len(set(seen))
        assert len(seen) > size  # more than an epoch
        for start in range(0, len(seen), size):
            assert max(Counter(seen[start : start + size]).values()) == 1

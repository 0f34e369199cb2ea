"""Trainings as processes, and what their folders say."""

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
from vdsm import checkpoint

STAGES = (60, 40)
"""Steps of the trainings here."""
LONGER = ["--training.picture-interval", "4"]
"""Makes a run take longer, so that it is not over before it is struck, and changes nothing else."""


def accidents(trials: int, seed: str, last: int = 80) -> list[tuple[random.Random, list[int]]]:
    """`trials` accidents shared out over runs, at most five to each, which costs far less time than a run for each. For
    each run the dice, and the steps of both stages at which its accidents happen, in order, one in each part of it.
    None after step `last`: a run must not be over before it is struck."""
    runs = []
    for number, begun in enumerate(range(0, trials, 5)):
        dice, count = random.Random(f"{seed}:{number}"), min(5, trials - begun)
        length = (last - 4) // count
        runs.append((dice, [4 + length * part + dice.randrange(length) for part in range(count)]))
    return runs


@contextmanager
def started(root: Path, words: list[str], folder: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The job as a process of its own, started by path from another folder; it ends with the block."""
    command = [sys.executable, str(root / "pipeline" / "train.py"), *words]
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
    """Processes that `pid` started, directly or not, with their names."""
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
    condition: Callable[[], Any], what: str, seconds: float = 300, process: "subprocess.Popen[Any] | None" = None
) -> None:
    """Until `condition` holds; the limit only ends a test that would hang. `process` must run until then."""
    end = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, f"the training ended before {what}"
        assert time.monotonic() < end, f"waited {seconds} s in vain until {what}"
        time.sleep(0.02)


def lines(place: Path | str) -> list[dict[str, Any]]:
    """Of a file of JSON lines, in a folder or in S3; without the last one if it is being written."""
    try:
        text = storage.read_bytes(str(place)).decode()
    except MissingFileError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def reached(run: Path, overall_step: int) -> Callable[[], bool]:
    return lambda: any(line["overall_step"] >= overall_step for line in lines(run / "metrics.jsonl"))


def events(run: Path | str) -> list[str]:
    return [line["event"] for line in lines(storage.join(str(run), "events.jsonl"))]


def begun(run: Path | str) -> list[dict[str, Any]]:
    """The record of each group of workers that has begun, the newest last."""
    return [line for line in lines(storage.join(str(run), "events.jsonl")) if line["event"] in ("start", "resume")]


def groups(run: Path | str) -> list[int]:
    """Size of each group of workers that has begun, the newest last."""
    return [line["workers"] for line in begun(run)]


def training(run: Path, group: int, overall_step: int) -> Callable[[], bool]:
    """Whether the run's group of workers of that number, from 1, has reached a step."""
    return lambda: len(groups(run)) == group and reached(run, overall_step)()


def workers(run: Path) -> list[dict[str, Any]]:
    """Process and node of each rank of the group that trains now."""
    groups_so_far = begun(run)
    return list(groups_so_far[-1]["processes"]) if groups_so_far else []


def newest(run: Path) -> Path:
    return max((run / "checkpoints").glob("stage*.pt"))


def stage_state(run: Path | str, stage: int, scratch: Path) -> dict[str, Any]:
    storage.download(storage.join(str(run), f"stage{stage}.pt"), scratch / "state.pt")
    return checkpoint.load(scratch / "state.pt")


def assert_same_weights(run: Path | str, other: Path, scratch: Path) -> None:
    for stage in (1, 2):
        here, there = stage_state(run, stage, scratch), stage_state(other, stage, scratch)
        assert here["model"].keys() == there["model"].keys()
        assert all(torch.equal(here["model"][key], there["model"][key]) for key in here["model"]), stage


def trained_on(run: Path | str) -> dict[tuple[int, int], list[str]]:
    """The clips of each step that counts, by (stage, step), in the order of the global batch."""
    folder = storage.join(str(run), "audit")
    found: dict[tuple[int, int], list[str]] = {}
    for name in storage.list_files(folder):  # by stage and step: what was done again replaces what was lost
        ranks: dict[tuple[int, int], dict[int, list[str]]] = {}
        for line in lines(storage.join(folder, name)):
            ranks.setdefault((line["stage"], line["step"]), {})[line["rank"]] = line["clips"]
        found |= {step: [clip for rank in sorted(parts) for clip in parts[rank]] for step, parts in ranks.items()}
    return found


def assert_every_clip_once(run: Path | str, other: Path) -> None:
    """That both runs saw the same clips at each step, and each clip once per epoch."""
    here, there = trained_on(run), trained_on(other)
    assert sorted(here) == [(stage, step) for stage in (1, 2) for step in range(STAGES[stage - 1])]
    assert here == there
    for stage in (1, 2):
        seen = [clip for (at, _), clips in sorted(here.items()) if at == stage for clip in clips]
        size = len(set(seen))
        assert len(seen) > size  # more than an epoch
        for start in range(0, len(seen), size):
            assert max(Counter(seen[start : start + size]).values()) == 1

"""Parts of `gpu.py` that train: whether a device gives what the CPU gives, and what the loop costs there."""

import argparse
import collections
import copy
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from arguments import ROOT
from numpy.typing import NDArray
from torch import Tensor

from pipeline.training.config import TrainingConfig
from pipeline.training.distributed import DistributedContext
from pipeline.training.job import Job
from pipeline.training.loop import train_run
from pipeline.training.reporter import QuietReporter, StopDecision
from pipeline.training.stage_config import StageConfig
from pipeline.training.state import TrainState
from pipeline.training.step import Stepper
from vdsm.config import STAGE_2_ANNEALING
from vdsm.device import CPU
from vdsm.presets import PRESETS

STAGES: tuple[Literal[1], Literal[2]] = (1, 2)


class RandomClips:
    """Clips of noise in memory, of which many share their frames."""

    def __init__(self, size: int, channels: int, count: int = 400, length: int = 20) -> None:
        self.keys = [f"clip{number}" for number in range(count)]
        self.identities = [f"identity{number // 8}" for number in range(count)]
        self.sources, self.starts_s = self.keys, np.zeros(count)
        self.clip_frames, self.clip_shards = np.full(count, length), np.arange(count) // 50
        shape = (16, length, size, size, channels)
        self._made = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    def frames(self, index: int) -> NDArray[np.uint8]:
        """Return clip `index` as uint8 [T, H, W, C]."""
        frames: NDArray[np.uint8] = self._made[index % len(self._made)]
        return frames

    def prepare(self, shard: int) -> bool:
        """Return True: all shards are here."""
        return True


class Keeper(QuietReporter):
    """Keeps the records and the last checkpoint, and stops after some steps."""

    def __init__(self, stop_after: int | None = None) -> None:
        self._stop_after, self._steps = stop_after, 0
        self.records: list[dict[str, Any]] = []
        self.state: TrainState | None = None

    def log(self, record: dict[str, Any]) -> None:
        """Keep a record."""
        self.records.append(record)

    def save(self, state: TrainState, **_: Any) -> None:
        """Keep a copy of a checkpoint."""
        self.state = copy.deepcopy(state)

    def should_stop(self) -> StopDecision:
        """Ask for a stop once the steps are done."""
        self._steps += 1
        return StopDecision(self._steps == self._stop_after)

    def column(self, stage: int, name: str) -> list[float]:
        """Return a number of every training record of a stage."""
        return [record[name] for record in self.records if record["kind"] == "train" and record["stage"] == stage]

    def losses(self) -> list[float]:
        """Return the losses of all training records, of stage 1 and then of stage 2."""
        return [loss for stage in STAGES for loss in self.column(stage, "loss")]

    def weights(self) -> dict[str, Tensor]:
        """Return the weights of the last checkpoint, on the CPU, that training changes."""
        assert self.state is not None
        return {name: tensor.cpu() for name, tensor in self.state.weights.items() if tensor.is_floating_point()}


def formats(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the number formats to measure."""
    return ("fp32", "bf16") if options.device.type == "cpu" else ("fp32", "tf32", "bf16")


def job_of(options: argparse.Namespace, steps: int, *, dropout: float = 0.2, **changes: Any) -> Job:
    """Return a training of both stages, with 20 clips of 8 frames in a step, that saves at the end of a stage alone."""
    small = options.small
    stage = StageConfig(steps=steps, batch_clips=4 if small else 20, clip_frames=4 if small else 8)
    never = 10**6
    training: dict[str, Any] = {
        "num_workers": 1, "picture_interval": 0, "validation_interval": never, "checkpoint_interval": never,
        "log_interval": 1, "prior_clips": 0, "validation_clips": 20, "stage1": stage,
        "stage2": replace(stage, annealing=STAGE_2_ANNEALING),
    }  # fmt: skip
    model = PRESETS["paper"](num_experts=2 if small else 40, rnn_dropout=dropout)
    clips = RandomClips(model.frame_size, model.channels)
    return Job(model=model, training=TrainingConfig(**(training | changes)), seed=1, clips=clips)


def correctness(options: argparse.Namespace) -> dict[str, Any]:
    """Compare the first steps of both stages with those on the CPU: in fp32, without dropout, whose masks differ."""
    rows = {}
    for name, where in (("cpu", CPU), ("device", options.device)):
        kept = Keeper()
        train_run(job_of(options, 3, dropout=0.0), kept, DistributedContext(device=where))
        rows[name] = {(s, what): kept.column(s, what) for s in STAGES for what in ("loss", "gradient_norm")}
    found: dict[str, Any] = {}
    for (stage, what), expected in rows["cpu"].items():
        pairs = list(zip(rows["device"][stage, what], expected, strict=True))
        found[f"stage {stage}, {what}"] = {
            "cpu": [right for _, right in pairs],
            "device": [here for here, _ in pairs],
            "largest relative difference": max(abs(here - right) / abs(right) for here, right in pairs),
        }
    return found


def loop(options: argparse.Namespace) -> dict[str, Any]:
    """Time the training loop itself, which also reads, clips gradients, checks and logs."""
    rows = []
    for precision in formats(options):
        kept, every = Keeper(), 2 if options.small else 20
        job = job_of(options, 3 * every, precision=precision, log_interval=every)
        train_run(job, kept, DistributedContext(device=options.device))
        for stage in STAGES:
            names = ("seconds_per_step", "clips_per_s", "data_wait_share", "memory_gb", "loss")
            # The first record holds the start.
            row = {name: statistics.median(kept.column(stage, name)[1:]) for name in names}
            rows.append({"stage": stage, "format": precision} | row)
    return {"rows": rows}


def waits(options: argparse.Namespace) -> dict[str, Any]:
    """Count how often the host waits for the device within a step, by function of this project."""
    device, steps = options.device, 10
    if device.type != "cuda":
        return {"left out": "only CUDA reports when the host waits"}
    counts: collections.Counter[tuple[int, str]] = collections.Counter()
    original: Callable[..., Any] = Stepper.step

    def counted(self: Stepper, *args: Any) -> Any:
        with counting_waits() as seen:
            result = original(self, *args)
        counts.update((self.stage, name) for name in seen)
        return result

    Stepper.step = counted  # type: ignore[method-assign]
    train_run(job_of(options, steps, log_interval=steps), Keeper(), DistributedContext(device=device))
    return {
        f"stage {stage}": {name: count / steps for (number, name), count in sorted(counts.items()) if number == stage}
        for stage in STAGES
    }


def _innermost() -> str:
    """Return the innermost function of the model or the training that is running, as `file:name`."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        path = Path(frame.f_code.co_filename)
        if any(path.is_relative_to(ROOT / package) for package in ("vdsm", "pipeline")):
            return f"{path.relative_to(ROOT)}:{frame.f_code.co_qualname}"
    return "elsewhere"


@contextmanager
def counting_waits() -> Iterator[list[str]]:
    """Collect, for every wait of the host for CUDA, the innermost function of this project."""
    seen: list[str] = []

    def note(message: Any, *_: Any, **__: Any) -> None:
        if "synchroni" in str(message):
            seen.append(_innermost())

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield seen
        finally:
            torch.cuda.set_sync_debug_mode("default")


def resume(options: argparse.Namespace, *, deterministic: bool = False) -> dict[str, Any]:
    """Compare the weights of a training that was stopped in stage 2 and resumed with those of an undisturbed one."""
    world, steps = DistributedContext(device=options.device), 2 if options.small else 20
    job = job_of(options, steps, deterministic=deterministic)
    whole, part, rest = Keeper(), Keeper(stop_after=steps + steps // 2), Keeper()
    train_run(job, whole, world)
    train_run(job, part, world)
    assert part.state is not None
    train_run(job, rest, world, part.state)
    found, expected = rest.weights(), whole.weights()
    differences = {name: float((found[name] - expected[name]).abs().max()) for name in expected}
    return {
        "largest difference of a weight": max(differences.values()),
        "tensors that differ": f"{sum(value > 0 for value in differences.values())} of {len(differences)}",
    }


def resume_deterministic(options: argparse.Namespace) -> dict[str, Any]:
    """Compare them with `training.deterministic`, in which they have to be equal bit for bit."""
    return resume(options, deterministic=True)


def ranks(options: argparse.Namespace) -> dict[str, Any]:
    """Compare two ranks on one device, which exchange gradients by gloo, with one rank."""
    steps = 3
    kept = Keeper()
    began = time.perf_counter()
    train_run(job_of(options, steps, dropout=0.0), kept, DistributedContext(device=options.device))
    alone = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        torch.multiprocessing.spawn(_rank, (options, folder, steps), nprocs=2)
        together = time.perf_counter() - began
        losses = json.loads((Path(folder) / "losses.json").read_text())
    return {
        "largest relative difference of a loss": max(
            abs(found - right) / abs(right) for found, right in zip(losses, kept.losses(), strict=True)
        ),
        "steps": 2 * steps,
        "seconds of one rank": alone, "seconds of two, with the start of their processes": together,
    }  # fmt: skip


def _rank(rank: int, options: argparse.Namespace, folder: str, steps: int) -> None:
    torch.set_num_threads(options.threads)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    kept = Keeper()
    train_run(job_of(options, steps, dropout=0.0), kept, DistributedContext(rank, 2, options.device))
    if rank == 0:
        (Path(folder) / "losses.json").write_text(json.dumps(kept.losses()))
    dist.destroy_process_group()

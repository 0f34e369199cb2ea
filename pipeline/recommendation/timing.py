"""How long a step takes on this machine: a few real ones, of the real model on the real data."""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from pipeline.training.distributed import DistributedContext
from pipeline.training.divergence import DivergenceError
from pipeline.training.job import Job
from pipeline.training.precision import resolve_precision
from pipeline.training.reporter import QuietReporter
from pipeline.training.stage import StageRun
from vdsm.disentangler import Disentangler
from vdsm.float_formats import set_flags
from vdsm.memory import keep_freed_memory


def seconds_per_step(job: Job, seconds: float) -> dict[int, float]:
    """Return the median time of a step by stage, of one worker alone on its share of the batch; empty if unknown.

    Args:
        job: the training.
        seconds: time for all stages together; at least one step of each is measured, after one to warm up.
    """
    if seconds <= 0:
        return {}
    keep_freed_memory()
    stages = job.training.selected_stages
    with _threads(job.training.threads_per_worker):
        found = {stage: _seconds_per_step(_of_one_worker(job), stage, seconds / len(stages)) for stage in stages}
    return {stage: value for stage, value in found.items() if value is not None} if all(found.values()) else {}


def _of_one_worker(job: Job) -> Job:
    """Return the training of one worker's clips."""
    training = job.training
    stage1, stage2 = (
        replace(stage, batch_clips=-(-stage.batch_clips // training.num_workers))
        for stage in (training.stage1, training.stage2)
    )
    alone = replace(training, num_workers=1, min_workers=None, audit=False, stage1=stage1, stage2=stage2)
    return replace(job, training=alone)


def _seconds_per_step(job: Job, stage: int, seconds: float) -> float | None:
    """Return the median time of a step; None if the training diverges at once."""
    device = torch.device("cuda" if job.training.use_gpu else "cpu")
    model = Disentangler(job.model).to(device)
    reporter = QuietReporter()
    world = DistributedContext(device=device)
    set_flags(resolve_precision(job.training, world))
    run = StageRun(job, 1 if stage == 1 else 2, model, reporter, world)
    times: list[float] = []
    end = time.monotonic() + seconds
    with run.batches(0) as batches:
        for step, batch in enumerate(batches):
            started = time.monotonic()
            try:
                run.stepper.step(step, batch, reporter)
                run.stepper.settle()
            except DivergenceError:
                return None
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.monotonic() - started)
            if len(times) > 1 and time.monotonic() > end:
                break
    return statistics.median(times[1:] or times)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

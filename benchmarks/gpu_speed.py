"""Parts of `gpu.py` that measure speed: single steps against the device's limits, layouts of the decoder, kernels."""

import argparse
import statistics
from typing import Any

import step
import torch
from gpu_training import STAGES, Keeper, formats, job_of
from torch.profiler import ProfilerActivity, profile

from pipeline.training.distributed import DistributedContext
from pipeline.training.stage import StageRun
from vdsm.decoder import ExpertTransposedConv
from vdsm.disentangler import Disentangler
from vdsm.float_formats import set_flags


def bandwidth_gb_per_s(device: torch.device) -> float:
    """Measure the bytes per second, in 10^9, that a copy of a large tensor reads and writes."""
    size = 2**26 if device.type == "cpu" else 2**29
    source, target = torch.zeros(2, size, dtype=torch.uint8, device=device)
    times = []
    for _ in range(6):
        began = step.now(device)
        target.copy_(source)
        times.append(step.now(device) - began)
    return 2 * size / min(times[1:]) / 1e9


def step_gigabytes(stage: int, experts: int, trained: int) -> float:
    """Return the bytes, in 10^9, that a step has to move for its weights alone, whatever the batch.

    The experts' kernels are read when they are blended, and again for the gradient of the static code; in stage 1 their
    own gradient is written. Adam reads a weight, its gradient and two moments, and writes all but the gradient.
    Activations are left out, so the time that follows is a bound from below.

    Args:
        stage: 1 or 2.
        experts: weights of the decoder.
        trained: weights that the stage trains.
    """
    return 4 * ((3 if stage == 1 else 2) * experts + 7 * trained) / 1e9


def step_times(options: argparse.Namespace) -> dict[str, Any]:
    """Time steps of both stages in each number format, for a small and a large batch, against the device's limits.

    The bound (roofline) is the longer of the times for the operations, at the rate of the fastest large matrix product,
    and for the bytes of the weights, at that of a copy.
    """
    device, rows = options.device, []
    bandwidth = bandwidth_gb_per_s(device)
    for dtype in formats(options):
        set_flags(dtype)
        peak = step.matmul_peak(device, dtype)
        for stage in STAGES:
            for clips in (2, 4) if options.small else (20, 160):
                case = step_case(options, stage, dtype, clips)
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats(device)
                times = step.timed_steps(case.stage, case.trained, case, case.precision, options.steps, fused=True)
                seconds = statistics.median(times)
                frames = getattr(case.stage, "frame_model", case.stage)
                experts = sum(parameter.numel() for parameter in frames.decoder.parameters())
                gflop = step.step_gflop(case.config, stage, clips, case.frames.shape[1])
                gigabytes = step_gigabytes(stage, experts, sum(parameter.numel() for parameter in case.trained))
                bound = max(gflop / peak, gigabytes / bandwidth)
                rows.append({
                    "stage": stage, "format": dtype, "clips": clips, "seconds": seconds, "fastest": min(times),
                    "slowest": max(times), "clips_per_s": clips / seconds, "gflop_per_s": gflop / seconds,
                    "weights_gb_per_s": gigabytes / seconds, "bound_seconds": bound,
                    "bound_by": "operations" if gflop / peak > gigabytes / bandwidth else "bytes",
                    "share_of_bound": bound / seconds, "peak_memory_gb": step.peak_memory_gb(device),
                    "matmul_peak_gflop_per_s": peak,
                })  # fmt: skip
                del case, frames
    return {"bandwidth_gb_per_s": bandwidth, "rows": rows}


def step_case(options: argparse.Namespace, stage: int, dtype: str, clips: int) -> step.Case:
    """Return a stage with a batch."""
    small = options.small
    return step.Case(argparse.Namespace(
        stage=stage, preset="paper", dtype=dtype, device=options.device, clips=clips,
        frames=4 if small else 8, experts=2 if small else 40, seed=0, threads=options.threads,
    ))  # fmt: skip


def layouts(options: argparse.Namespace) -> dict[str, Any]:
    """Time stage 1 with each way to compute the decoder's upsampling; see `vdsm/decoder.py`."""
    rows = []
    for dtype in formats(options):
        for largest, name in ((0, "grouped convolutions"), (4, "folded to 4x4, then grouped"), (64, "folded")):
            case = step_case(options, 1, dtype, 4 if options.small else 20)
            for layer in case.stage.decoder.layers:
                assert isinstance(layer, ExpertTransposedConv)
                layer.largest_folded = largest
            times = step.timed_steps(case.stage, case.trained, case, case.precision, options.steps, fused=True)
            rows.append({"format": dtype, "layout": name, "seconds": statistics.median(times)})
            del case
    return {"rows": rows}


def kernels(options: argparse.Namespace) -> dict[str, Any]:
    """Profile steps of the training loop: the kernels that take longest, and how long the device is busy."""
    device, found = options.device, {}
    on_device = device.type != "cpu"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    time_of = "self_device_time_total" if on_device else "self_cpu_time_total"
    warm, steps = 3, 2 if options.small else 5
    for precision in ("fp32", "bf16"):
        set_flags(precision)  # with torch's own, convolutions of fp32 would be in TF32
        for stage in STAGES:
            job = job_of(options, warm + steps, precision=precision)
            run = StageRun(job, stage, Disentangler(job.model).to(device), Keeper(), DistributedContext(device=device))
            run.module.train()
            with run.batches(0) as batches:
                ready = list(batches)
            for number in range(warm):
                run.stepper.step(number, ready[number], run.reporter)
            began = step.now(device)
            with profile(activities=activities) as profiler:
                for number in range(warm, warm + steps):
                    run.stepper.step(number, ready[number], run.reporter)
                elapsed = step.now(device) - began
            run.stepper.settle()
            events = [event for event in profiler.key_averages() if getattr(event, time_of, 0) > 0]
            events.sort(key=lambda event: -getattr(event, time_of))
            found[f"{precision}, stage {stage}"] = {
                "ms per step, with the profiler": 1e3 * elapsed / steps,
                "ms per step that the device is busy": sum(getattr(e, time_of) for e in events) / 1e3 / steps,
                "longest": [
                    {"kernel": e.key[:90], "calls": e.count / steps, "ms": getattr(e, time_of) / 1e3 / steps}
                    for e in events[:12]
                ],
            }
    return found

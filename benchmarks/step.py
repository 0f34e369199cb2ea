"""Speed of one training step (forward, backward, Adam), against a loop over clips and against the machine.

    python benchmarks/step.py --stage 1 --preset paper --json
    python benchmarks/step.py --stage 2 --preset paper --dtype bf16 --json
    python benchmarks/step.py --stage 1 --device cuda --dtype tf32 --baseline-steps 0 --json

Needs torch and pyro only. The baseline (`looped.py`) runs first, in fp32, with the same parameters, clips and noise,
in a process of its own, so that neither has the other's memory. Both losses are compared in fp32 with dropout off.
In stage 2 the baseline also runs without the gradients that the release computes and never uses: its `lean` figures.
"""

if not __package__:  # run by path: import from the repository, not from this file's folder
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.looped import LoopedFrames, LoopedSequence
from vdsm.annealing import Weights
from vdsm.config import ModelConfig
from vdsm.disentangler import Disentangler
from vdsm.memory import TUNABLES, keep_freed_memory
from vdsm.presets import PRESETS

WEIGHTS = Weights(pose=0.5, static=1.0, dynamics=1.0, temperature=5.0)


def main() -> None:
    """Runs the benchmark and prints its figures."""
    options = arguments()
    baseline: dict[str, Any] = {}
    if options.baseline_steps:
        baseline = in_new_process(run_baseline, options)
        if options.stage == 2:
            lean = in_new_process(run_baseline, argparse.Namespace(**vars(options), lean=True))
            baseline["lean_baseline_seconds_per_step"] = lean["baseline_seconds_per_step"]
            baseline["lean_baseline_seconds_of_each_step"] = lean["baseline_seconds_of_each_step"]
    # As for every worker of a training; glibc reads it at the start of a process.
    os.environ.setdefault("GLIBC_TUNABLES", TUNABLES)
    figures = in_new_process(run_model, options, baseline)
    show(figures, as_json=options.json)


def run_model(options: argparse.Namespace, baseline: dict[str, Any]) -> dict[str, Any]:
    """All figures: of the model's own steps, and beside those of the baseline."""
    if options.device == "cpu":
        keep_freed_memory()
    case = Case(options)
    config, stage, device = case.config, case.stage, case.frames.device
    peak = matmul_peak(device, options.dtype)

    figures: dict[str, Any] = {
        "stage": options.stage, "preset": options.preset, "dtype": options.dtype, "seed": options.seed,
        "experts": config.num_experts, "clips": options.clips, "frames": options.frames,
        "parameters_trained": sum(p.numel() for p in stage.parameters() if p.requires_grad),
    }  # fmt: skip
    gflop = step_gflop(config, options.stage, options.clips, options.frames)

    def precision() -> AbstractContextManager[Any]:
        on = options.dtype == "bf16"
        return torch.autocast(device.type, torch.bfloat16) if on else nullcontext()

    trained = [parameter for parameter in stage.parameters() if parameter.requires_grad]
    times = timed_steps(stage, trained, case, precision, options.steps, fused=True)
    seconds = statistics.median(times)
    figures |= {
        "seconds_per_step": round(seconds, 4), "seconds_of_each_step": [round(t, 4) for t in times],
        "clips_per_s": round(options.clips / seconds, 2), "peak_memory_gb": peak_memory_gb(device),
        "gflop_per_step": round(gflop, 1), "gflop_per_s": round(gflop / seconds, 1),
        "matmul_peak_gflop_per_s": round(peak, 1), "share_of_peak": round(gflop / seconds / peak, 3),
    }  # fmt: skip
    if baseline:
        expected = baseline["baseline_loss"]
        difference = abs(evaluated(stage, case, nullcontext) - expected) / abs(expected)
        here = abs(evaluated(stage, case, precision) - expected) / abs(expected)
        figures |= {"speedup": round(baseline["baseline_seconds_per_step"] / seconds, 2)}
        if options.stage == 2:
            figures |= {"lean_speedup": round(baseline["lean_baseline_seconds_per_step"] / seconds, 2)}
        figures |= baseline
        figures |= {"relative_difference_of_losses": difference, f"relative_difference_of_losses_{options.dtype}": here}
    return figures | {"machine": machine(device)}


def in_new_process(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What the function returns."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


class Case:
    """A stage with a batch for it, all from the seed."""

    def __init__(self, options: argparse.Namespace) -> None:
        device = torch.device(options.device)
        torch.set_num_threads(options.threads)
        torch.set_float32_matmul_precision("high" if options.dtype == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = options.dtype == "tf32"
        torch.manual_seed(options.seed)
        model = Disentangler(PRESETS[options.preset](num_experts=options.experts)).to(device)
        self.config = config = model.config
        self.stage: Any = model.prepare_stage(options.stage)
        generator = torch.Generator().manual_seed(options.seed)
        shape = (options.clips, options.frames, config.channels, config.frame_size, config.frame_size)
        self.frames = torch.rand(shape, generator=generator).to(device)
        noise = self.stage.draw_noise(options.clips, options.frames, generator)
        self.noise = type(noise)(*(part.to(device) for part in noise))


def run_baseline(options: argparse.Namespace) -> dict[str, Any]:
    """Time and loss of the loop over clips, in fp32."""
    case = Case(argparse.Namespace(**(vars(options) | {"dtype": "fp32"})))
    trained = [parameter for parameter in case.stage.parameters() if parameter.requires_grad]
    looped: nn.Module = LoopedFrames(case.stage)
    if options.stage == 2:
        looped = LoopedSequence(case.stage, image_gradients=not getattr(options, "lean", False))
    times = timed_steps(looped, trained, case, nullcontext, options.baseline_steps, fused=False)
    return {
        "baseline_seconds_per_step": round(statistics.median(times), 3),
        "baseline_seconds_of_each_step": [round(seconds, 3) for seconds in times],
        "baseline_peak_memory_gb": peak_memory_gb(case.frames.device),
        "baseline_loss": evaluated(looped, case, nullcontext),
    }


def evaluated(module: nn.Module, case: Case, precision: Callable[[], AbstractContextManager[Any]]) -> float:
    """The loss with dropout off."""
    module.eval()
    with torch.no_grad(), precision():
        loss: float = module(case.frames, case.noise, WEIGHTS).loss.item()
    return loss


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", type=int, choices=(1, 2), default=1)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="paper")
    parser.add_argument("--dtype", choices=("fp32", "tf32", "bf16"), default="fp32", help="tf32: CUDA only")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--clips", type=int, default=20, help="B")
    parser.add_argument("--frames", type=int, default=8, help="T")
    parser.add_argument("--experts", type=int, default=40, help="K")
    parser.add_argument("--steps", type=int, default=5, help="timed steps, after one that is not")
    parser.add_argument("--baseline-steps", type=int, default=3, help="timed steps of the baseline; 0 leaves it out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.exit(2, f"--device is {options.device}, but torch sees no CUDA device; use --device cpu\n")
    if options.dtype == "tf32" and not options.device.startswith("cuda"):
        parser.exit(2, "--dtype tf32 exists on CUDA devices only; use fp32 or bf16\n")
    return options


def timed_steps(
    module: nn.Module, trained: list[nn.Parameter], case: Case, precision: Callable[[], AbstractContextManager[Any]],
    steps: int, *, fused: bool,
) -> list[float]:  # fmt: skip
    """Seconds of each of `steps` optimiser steps, after one that is not counted."""
    # A rate of (nearly) nothing: all the work, and the model stays what it was.
    optimiser = torch.optim.Adam(trained, lr=1e-12, fused=fused)
    module.train()
    times = []
    for _ in range(steps + 1):
        started = now(case.frames.device)
        with precision():
            loss = module(case.frames, case.noise, WEIGHTS).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        times.append(now(case.frames.device) - started)
    return times[1:]


def step_gflop(config: ModelConfig, stage: int, clips: int, frames: int) -> float:
    """Floating point operations (2 per multiply-add) that a step needs, in 1e9; those of small layers are left out.

    Per trained convolution: forward, gradient of the input and of the kernel. In stage 2 the encoder runs forward only;
    the decoder still needs both gradients, for that of a blended kernel leads to the static code.
    """
    images, size = clips * frames, config.frame_size
    encoder = 0.0
    channels = config.channels
    for width in config.encoder_channels:
        out = size // 2 if config.encoder_downsampling == "stride" else size - 1
        encoder += 2 * images * out**2 * 16 * channels * width
        channels, size = width, size // 2
    encoder += 2 * images * 16 * channels * config.encoder_hidden
    widths = [config.pose_size + config.num_experts, *config.decoder_channels, config.channels]
    decoder = mixing = 0.0
    for index, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
        pixels = 1 if index == 0 else (4 * 2 ** (index - 1)) ** 2
        decoder += 2 * images * pixels * 16 * fan_in * fan_out
        mixing += 2 * clips * config.num_experts * 16 * fan_in * fan_out
    if stage == 1:
        return 3 * (encoder + decoder + mixing) / 1e9
    width, layers = config.rnn_width, config.rnn_layers
    reading = 2 * 4 * width * (config.pose_size + width) + (layers - 1) * 2 * 4 * width * 3 * width
    writing = layers * 4 * width * 2 * width
    return (encoder + 3 * decoder + 2 * mixing + 3 * 2 * images * (reading + writing)) / 1e9


def matmul_peak(device: torch.device, dtype: str) -> float:
    """GFLOP/s of the best of a few square matrix products in `dtype` on this machine."""
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    size = 2048 if device.type == "cpu" else 8192
    left, right = torch.randn(2, size, size, device=device).to(kind)
    times = []
    for _ in range(6):
        started = now(device)
        left @ right
        times.append(now(device) - started)
    return 2 * size**3 / min(times[1:]) / 1e9


def peak_memory_gb(device: torch.device) -> float:
    """Largest memory so far: of the process on a CPU, of torch's tensors on a GPU."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e9, 2)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)


def now(device: torch.device) -> float:
    """A clock in seconds, read when the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on."""
    cpus = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in cpus.read_text().splitlines() if line.startswith("model name")]
    found = {"cpu": names[0] if names else platform.processor(), "threads": torch.get_num_threads()}
    gpu = {"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    return found | gpu | {"torch": torch.__version__, "python": platform.python_version()}


def show(figures: dict[str, Any], *, as_json: bool) -> None:
    """One JSON object, or one line per figure."""
    if as_json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:45} {value}")


if __name__ == "__main__":
    main()

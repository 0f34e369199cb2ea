"""Speed of one training step (forward, backward, Adam), against a loop over clips and the machine's peak.

    python benchmarks/step.py --stage 1 --preset paper --json
    python benchmarks/step.py --stage 2 --preset paper --dtype bf16 --json
    python benchmarks/step.py --stage 1 --device cuda --dtype tf32 --baseline-steps 0 --json

Needs torch and pyro only. The baseline (`looped.py`) runs first, in fp32, with the same parameters, clips and noise. It
runs in a process of its own, so that the measured memory is separate. The losses of both are compared in fp32 with
dropout off. In stage 2 the baseline also runs without the gradients that the release computes and never uses: the
`lean` results.
"""

import argparse
import itertools
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import arguments
import torch
from looped import LoopedFrames, LoopedSequence
from torch import nn

from vdsm.annealing import Weights
from vdsm.config import ModelConfig
from vdsm.disentangler import Disentangler
from vdsm.float_formats import set_flags
from vdsm.memory import TUNABLES, keep_freed_memory
from vdsm.presets import PRESETS

WEIGHTS = Weights(pose=0.5, static=1.0, dynamics=1.0, temperature=5.0)


def main() -> None:
    """Run the benchmark and print its results."""
    options = parse_args()
    baseline: dict[str, Any] = {}
    if options.baseline_steps:
        baseline = in_new_process(run_baseline, options)
        if options.stage == 2:
            lean = in_new_process(run_baseline, argparse.Namespace(**vars(options), lean=True))
            baseline["lean_baseline_seconds_per_step"] = lean["baseline_seconds_per_step"]
            baseline["lean_baseline_seconds_of_each_step"] = lean["baseline_seconds_of_each_step"]
    # As in every worker of a training; glibc reads it at the start of a process.
    os.environ.setdefault("GLIBC_TUNABLES", TUNABLES)
    results = in_new_process(run_model, options, baseline)
    arguments.show(results, as_json=options.json)


def run_model(options: argparse.Namespace, baseline: dict[str, Any]) -> dict[str, Any]:
    """Measure the steps of the model, and compare them with those of the baseline."""
    if options.device == "cpu":
        keep_freed_memory()
    case = Case(options)
    config, stage, device = case.config, case.stage, case.frames.device
    peak = matmul_peak(device, options.dtype)

    results: dict[str, Any] = {
        "stage": options.stage, "preset": options.preset, "dtype": options.dtype, "seed": options.seed,
        "experts": config.num_experts, "clips": options.clips, "frames": options.frames,
        "parameters_trained": sum(parameter.numel() for parameter in case.trained),
    }  # fmt: skip
    gflop = step_gflop(config, options.stage, options.clips, options.frames)

    times = timed_steps(stage, case.trained, case, case.precision, options.steps, fused=True)
    seconds = statistics.median(times)
    results |= {
        "seconds_per_step": round(seconds, 4), "seconds_of_each_step": [round(t, 4) for t in times],
        "clips_per_s": round(options.clips / seconds, 2), "peak_memory_gb": peak_memory_gb(device),
        "gflop_per_step": round(gflop, 1), "gflop_per_s": round(gflop / seconds, 1),
        "matmul_peak_gflop_per_s": round(peak, 1), "share_of_peak": round(gflop / seconds / peak, 3),
    }  # fmt: skip
    if baseline:
        expected = baseline["baseline_loss"]
        in_fp32 = abs(evaluate(stage, case, nullcontext) - expected) / abs(expected)
        in_dtype = abs(evaluate(stage, case, case.precision) - expected) / abs(expected)
        results |= {"speedup": round(baseline["baseline_seconds_per_step"] / seconds, 2)}
        if options.stage == 2:
            results |= {"lean_speedup": round(baseline["lean_baseline_seconds_per_step"] / seconds, 2)}
        results |= baseline
        results |= {
            "relative_difference_of_losses": in_fp32,
            f"relative_difference_of_losses_{options.dtype}": in_dtype,
        }
    return results | {"machine": machine(device)}


def in_new_process(function: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """Call the function in a process of its own and return its result."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *args).result()


class Case:
    """A stage and a batch for it, both determined by the seed."""

    def __init__(self, options: argparse.Namespace) -> None:
        device = torch.device(options.device)
        torch.set_num_threads(options.threads)
        set_flags(options.dtype)
        torch.manual_seed(options.seed)
        model = Disentangler(PRESETS[options.preset](num_experts=options.experts)).to(device)
        self.config = config = model.config
        self.stage: Any = model.prepare_stage(options.stage)
        generator = torch.Generator().manual_seed(options.seed)
        shape = (options.clips, options.frames, config.channels, config.frame_size, config.frame_size)
        self.frames = torch.rand(shape, generator=generator).to(device)
        noise = self.stage.draw_noise(options.clips, options.frames, generator)
        self.noise = type(noise)(*(part.to(device) for part in noise))
        self.trained = [parameter for parameter in self.stage.parameters() if parameter.requires_grad]
        self._dtype: str = options.dtype

    def precision(self) -> AbstractContextManager[Any]:
        """Return the context in which the forward pass runs."""
        return torch.autocast(self.frames.device.type, torch.bfloat16) if self._dtype == "bf16" else nullcontext()


def run_baseline(options: argparse.Namespace) -> dict[str, Any]:
    """Measure time and loss of the loop over clips, in fp32."""
    case = Case(argparse.Namespace(**(vars(options) | {"dtype": "fp32"})))
    looped: nn.Module = LoopedFrames(case.stage)
    if options.stage == 2:
        looped = LoopedSequence(case.stage, image_gradients=not getattr(options, "lean", False))
    times = timed_steps(looped, case.trained, case, nullcontext, options.baseline_steps, fused=False)
    return {
        "baseline_seconds_per_step": round(statistics.median(times), 3),
        "baseline_seconds_of_each_step": [round(seconds, 3) for seconds in times],
        "baseline_peak_memory_gb": peak_memory_gb(case.frames.device),
        "baseline_loss": evaluate(looped, case, nullcontext),
    }


def evaluate(module: nn.Module, case: Case, precision: Callable[[], AbstractContextManager[Any]]) -> float:
    """Compute the loss with dropout off."""
    module.eval()
    with torch.no_grad(), precision():
        loss: float = module(case.frames, case.noise, WEIGHTS).loss.item()
    return loss


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    command = arguments.parser(__doc__)
    command.add_argument("--stage", type=int, choices=(1, 2), default=1, help="stage to train")
    command.add_argument("--preset", choices=sorted(PRESETS), default="paper", help="settings of the model")
    command.add_argument("--dtype", choices=("fp32", "tf32", "bf16"), default="fp32", help="tf32: CUDA only")
    command.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    command.add_argument("--clips", type=int, default=20, help="B: clips in the batch")
    command.add_argument("--frames", type=int, default=8, help="T: frames per clip")
    command.add_argument("--experts", type=int, default=40, help="K: experts of the decoder")
    command.add_argument("--steps", type=int, default=5, help="timed steps, after one that is not timed")
    command.add_argument("--baseline-steps", type=int, default=3, help="timed steps of the baseline; 0 skips it")
    command.add_argument("--seed", type=int, default=0, help="seed of parameters, clips and noise")
    arguments.add_threads(command, 2)
    options = command.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        command.exit(2, f"--device is {options.device}, but torch finds no CUDA device; use --device cpu\n")
    if options.dtype == "tf32" and not options.device.startswith("cuda"):
        command.exit(2, "--dtype tf32 needs a CUDA device; use fp32 or bf16\n")
    return options


def timed_steps(
    module: nn.Module, trained: list[nn.Parameter], case: Case, precision: Callable[[], AbstractContextManager[Any]],
    steps: int, *, fused: bool,
) -> list[float]:  # fmt: skip
    """Return the seconds of each of `steps` optimiser steps, after one that is not counted."""
    # A learning rate of nearly 0: the work is done in full, but the model hardly changes.
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
    """Compute the floating point operations (2 per multiply-add) of a step, in 1e9, without those of small layers.

    A trained convolution has three passes: forward, gradient of the input, gradient of the kernel. In stage 2 the
    encoder runs forward only. The decoder still needs both gradients, since that of a blended kernel leads to the
    static code.
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
    """Measure the GFLOP/s of the fastest of a few square matrix products in `dtype`."""
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
    """Return the peak memory in 10^9 bytes: of the process on a CPU, of torch's tensors on a GPU."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e9, 2)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)


def now(device: torch.device) -> float:
    """Return the time in seconds, after all queued work of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def machine(device: torch.device) -> dict[str, Any]:
    """Describe the machine, the device and torch."""
    gpu = {"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    return arguments.machine() | {"threads": torch.get_num_threads()} | gpu | {"torch": torch.__version__}


if __name__ == "__main__":
    main()

"""Number formats of a computation: which flags of torch they need, and which of them a device computes fast.

This is the one place that sets these flags: with torch's own defaults, "fp32" on CUDA is a mixture of convolutions in
TF32 and matrix products in fp32.
"""

import os
from pathlib import Path
from typing import Literal

import torch

Precision = Literal["fp32", "tf32", "bf16", "fp16"]

SLOW_BF16 = 9
"""How many times as long as in fp32 a training step takes in bf16 on a CPU without instructions for it, measured on one
with AVX2 (docs/performance.md)."""


def set_flags(precision: Precision, *, deterministic: bool = False) -> None:
    """Set torch's flags for all later computations of this process.

    Args:
        precision: with `tf32`, CUDA devices round the factors of products and convolutions to 10 bits of mantissa. In
            all other formats fp32 means fp32, also for what autocast leaves in it, such as parameters of distributions.
        deterministic: use only algorithms that give the same bits each time; an operation without one is an error.
    """
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    if deterministic:
        # cuBLAS reads it when it starts; either of two values makes it deterministic.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic = True
        torch.use_deterministic_algorithms(True)
        # Nothing here reads memory before it is written.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def has_fast_bf16(device: torch.device) -> bool:
    """Return whether a device has instructions for bf16."""
    if device.type == "cuda":
        return bool(torch.cuda.get_device_capability(device)[0] >= 8 or torch.version.hip)
    if device.type != "cpu":
        return device.type == "xpu"
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    # x86, then 64-bit Arm
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "").split()
    return not {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"}.isdisjoint(flags)

"""Computation in single precision (or better) under autocast.

Convolutions and the blending of experts may run in bfloat16. Recurrent nets are slower in it. Parameters of
distributions, their samples, log-probabilities and KL terms need more: a KL divides by the square of a small scale, and
a clip's likelihood sums 1e5 numbers.
"""

import torch
from torch import Tensor


def at_least_fp32(x: Tensor) -> Tensor:
    """Return `x` unchanged if it is float32 or float64, else converted to float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def full_precision(x: Tensor) -> torch.autocast:
    """Return a context in which autocast is off on the device of `x`."""
    return torch.autocast(x.device.type, enabled=False)

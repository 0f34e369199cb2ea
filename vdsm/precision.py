"""What is computed in single precision (or better) although autocast is on.

Convolutions and the expert mixing may run in bfloat16. Recurrent nets are slower there. Parameters of distributions,
their samples, log-probabilities and KL terms may not: a KL divides by the square of a small scale, and a clip's
likelihood sums 1e5 numbers.
"""

import torch
from torch import Tensor


def at_least_fp32(x: Tensor) -> Tensor:
    """`x` itself where it is float32 or float64, else `x` as float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def full_precision(x: Tensor) -> torch.autocast:
    """A context in which autocast is off on the device of `x`."""
    return torch.autocast(x.device.type, enabled=False)

"""Adam and its learning rate."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from pipeline.training.config import StageConfig


def adam(parameters: Iterable[nn.Parameter], config: StageConfig, *, sharded: bool = False) -> torch.optim.Optimizer:
    """Adam with the settings of a stage; set the rate of each step by `learning_rate`.

    With `sharded` each rank keeps the moments of its part of the parameters only and sends the others what it computed
    (ZeRO-1); that needs torch's process group.
    """
    # Fused: one pass over the parameters. With tens of experts the optimiser touches more memory than the model does.
    if not sharded:
        return torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)
    from torch.distributed.optim import ZeroRedundancyOptimizer

    optimiser: torch.optim.Optimizer = ZeroRedundancyOptimizer(
        parameters, torch.optim.Adam, lr=config.learning_rate, fused=True
    )
    return optimiser


def whole_state(optimiser: torch.optim.Optimizer, rank: int) -> dict[str, Any] | None:
    """The state of `adam`'s optimiser, on rank 0 (elsewhere none): the same whether it was sharded or not, and over how
    many ranks. Every rank must call."""
    if hasattr(optimiser, "consolidate_state_dict"):
        optimiser.consolidate_state_dict(to=0)
    return dict(optimiser.state_dict()) if rank == 0 else None


def learning_rate(config: StageConfig, step: int) -> float:
    """The rate of `step` (from 0): a linear rise over the warm-up, then half a cosine to the final fraction."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - 1 - config.warmup_steps)
    fall = 0.5 * (1 - math.cos(math.pi * min(progress, 1.0)))
    return config.learning_rate * (1 - (1 - config.final_rate_fraction) * fall)

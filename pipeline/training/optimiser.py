"""Adam and its learning rate."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from pipeline.training.config import StageConfig


def adam(parameters: Iterable[nn.Parameter], config: StageConfig) -> torch.optim.Adam:
    """Adam with the settings of a stage; set the rate of each step by `learning_rate`."""
    # Fused: one pass over the parameters. With tens of experts the optimiser touches more memory than the model does.
    return torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)


def learning_rate(config: StageConfig, step: int) -> float:
    """The rate of `step` (from 0): a linear rise over the warm-up, then half a cosine to the final fraction."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - 1 - config.warmup_steps)
    fall = 0.5 * (1 - math.cos(math.pi * min(progress, 1.0)))
    return config.learning_rate * (1 - (1 - config.final_rate_fraction) * fall)

"""Adam and its learning-rate schedule."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.training.distributed import DistributedContext
from pipeline.training.stage_config import StageConfig

_ADAM_STATE = ("step", "exp_avg", "exp_avg_sq")


def adam(parameters: Iterable[nn.Parameter], config: StageConfig, *, sharded: bool = False) -> torch.optim.Optimizer:
    """Return Adam with the settings of a stage; set the rate of each step with `learning_rate`.

    With `sharded`, each rank keeps the moments of its part of the parameters only and broadcasts what it computes
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


def full_state_dict(optimiser: torch.optim.Optimizer, world: DistributedContext) -> dict[str, Any] | None:
    """Return the complete state of `adam`'s optimiser on rank 0, none on other ranks. All ranks must call together.

    It is the same whether the optimiser was sharded or not, and over how many ranks.
    """
    if not hasattr(optimiser, "consolidate_state_dict"):
        return dict(optimiser.state_dict()) if world.is_first else None
    # Instead of consolidate_state_dict(), which sends pickled objects.
    local: dict[Tensor, dict[str, Tensor]] = optimiser.optim.state  # type: ignore[attr-defined]
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    owners = world.sum(torch.tensor([(world.rank + 1) * (parameter in local) for parameter in parameters]))
    state = {}
    for index, (parameter, owner) in enumerate(zip(parameters, owners.tolist())):
        if owner:
            own = local.get(parameter) or {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.empty_like(parameter),
                "exp_avg_sq": torch.empty_like(parameter),
            }
            state[index] = {name: world.broadcast_tensor(own[name].detach(), owner - 1) for name in _ADAM_STATE}
    groups = torch.optim.Optimizer.state_dict(optimiser)["param_groups"]
    return {"state": state, "param_groups": groups} if world.is_first else None


def learning_rate(config: StageConfig, step: int) -> float:
    """Return the learning rate of `step` (from 0): linear warm-up, then cosine decay to the final fraction."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - 1 - config.warmup_steps)
    fall = 0.5 * (1 - math.cos(math.pi * min(progress, 1.0)))
    return config.learning_rate * (1 - (1 - config.final_rate_fraction) * fall)

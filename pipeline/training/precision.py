"""Reduced precision in the forward and backward pass."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from pipeline.training.config import TrainingConfig
from pipeline.training.distributed import DistributedContext
from vdsm.float_formats import Precision as Name
from vdsm.float_formats import has_fast_bf16

LOWEST_SCALE = 2.0**-10
"""A loss scale below this means that gradients overflow at any scale."""


def resolve_precision(training: TrainingConfig, world: DistributedContext) -> Name:
    """Return the precision of a training, the same on every rank. All ranks must call together."""
    if training.precision != "auto":
        return training.precision
    (is_slow,) = world.any_rank(not has_fast_bf16(world.device))
    return "fp32" if is_slow else "bf16"


class Precision:
    """Autocast, and for fp16 the loss scale that keeps small gradients from underflowing.

    Weights, optimiser and all-reduce stay in fp32. With fp16, a step whose scaled gradient overflows is skipped and the
    scale is lowered; the scale is part of the checkpoint.
    """

    def __init__(self, name: Name, device: torch.device) -> None:
        self._device = device.type
        self._type = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(name, torch.float32)
        self._scaler = torch.amp.GradScaler(device.type) if name == "fp16" else None

    @property
    def scales_loss(self) -> bool:
        """Whether the loss is scaled, and steps whose gradient overflows are skipped."""
        return self._scaler is not None

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of a forward pass."""
        return torch.autocast(self._device, dtype=self._type, enabled=self._type != torch.float32)

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of the loss, scaled in fp16."""
        (loss if self._scaler is None else self._scaler.scale(loss)).backward()

    def unscale(self, optimiser: torch.optim.Optimizer) -> None:
        """Divide the gradients by the loss scale."""
        if self._scaler is not None:
            self._scaler.unscale_(optimiser)

    def overflowed(self, gradient_norm: Tensor) -> bool:
        """Return whether a non-finite gradient is an overflow that a lower loss scale fixes, and lower it if so."""
        if self._scaler is None or bool(torch.isfinite(gradient_norm)) or self._scaler.get_scale() < LOWEST_SCALE:
            return False
        self._scaler.update()
        return True

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        """Take the optimiser's step on finite gradients."""
        if self._scaler is None:
            optimiser.step()
            return
        self._scaler.step(optimiser)
        self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the loss scale; empty except with fp16."""
        return {} if self._scaler is None else dict(self._scaler.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        if self._scaler is not None and state:
            self._scaler.load_state_dict(dict(state))

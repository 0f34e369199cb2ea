"""Numbers of fewer bits in the forward and backward pass."""

from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor

LOWEST_SCALE = 2.0**-10
"""A loss scale below this means that gradients overflow whatever the scale is."""


class Precision:
    """Autocast, and for fp16 the scale that keeps small gradients from vanishing.

    Weights, optimiser and all-reduce stay in fp32. With fp16 a step whose scaled gradient overflows is left out and the
    scale is lowered; the scale is part of the checkpoint.
    """

    def __init__(self, name: Literal["fp32", "bf16", "fp16"], device: torch.device) -> None:
        self._device = device.type
        self._type = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
        self._scaler = torch.amp.GradScaler(device.type) if name == "fp16" else None

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of a forward pass."""
        return torch.autocast(self._device, dtype=self._type, enabled=self._type != torch.float32)

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of the (scaled) loss."""
        (loss if self._scaler is None else self._scaler.scale(loss)).backward()

    def unscale(self, optimiser: torch.optim.Optimizer) -> None:
        """Brings the gradients back to their size."""
        if self._scaler is not None:
            self._scaler.unscale_(optimiser)

    def overflowed(self, gradient_norm: Tensor) -> bool:
        """Whether a gradient that is not finite is an overflow of the scaled numbers, which a lower scale mends. Lowers
        the scale then."""
        if self._scaler is None or bool(torch.isfinite(gradient_norm)) or self._scaler.get_scale() < LOWEST_SCALE:
            return False
        self._scaler.update()
        return True

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        """The optimiser's step on finite gradients."""
        if self._scaler is None:
            optimiser.step()
            return
        self._scaler.step(optimiser)
        self._scaler.update()

    def state(self) -> dict[str, Any]:
        """For a checkpoint; empty except with fp16."""
        return {} if self._scaler is None else dict(self._scaler.state_dict())

    def load(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` gave."""
        if self._scaler is not None and state:
            self._scaler.load_state_dict(state)

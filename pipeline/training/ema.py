"""A running average of the weights, which often does better than the weights last trained."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


class WeightAverage:
    """The exponential moving average of the parameters of a module that a stage trains.

    `decay` is per optimiser step; with 0 there is no average and nothing below does anything. The other parameters do
    not change, so that they are their own average.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module, self._decay = module, decay
        self._trained = {name: p for name, p in module.named_parameters() if p.requires_grad} if decay else {}
        self._average = {name: p.detach().clone() for name, p in self._trained.items()}

    def __bool__(self) -> bool:
        return bool(self._average)

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the weights after a step."""
        if self._average:
            torch._foreach_lerp_(list(self._average.values()), list(self._trained.values()), 1 - self._decay)

    def state(self) -> dict[str, Tensor]:
        """The module's `state_dict` with the averages in it; empty without an average."""
        return {**self._module.state_dict(), **self._average} if self._average else {}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from what `state` gave."""
        for name, average in self._average.items():
            average.copy_(state[name])

    @contextlib.contextmanager
    def in_place(self, used: bool = True) -> Iterator[None]:
        """Within the block the module has the averaged weights, where there are any and they are to be `used`."""
        if not (used and self._average):
            yield
            return
        with torch.no_grad():
            kept = {name: parameter.clone() for name, parameter in self._trained.items()}
            for name, parameter in self._trained.items():
                parameter.copy_(self._average[name])
            try:
                yield
            finally:
                for name, parameter in self._trained.items():
                    parameter.copy_(kept[name])

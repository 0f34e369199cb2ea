"""An exponential moving average (EMA) of the weights, which often generalises better than the last trained weights."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


class ExponentialMovingAverage:
    """The exponential moving average of those parameters of a module that a stage trains.

    `decay` is per optimiser step; with 0 no average is kept, the object is falsy and its methods do nothing. Parameters
    that are not trained are constant and so equal to their average.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module, self._decay = module, decay
        self._trained = {name: p for name, p in module.named_parameters() if p.requires_grad} if decay else {}
        self._average = {name: p.detach().clone() for name, p in self._trained.items()}

    def __bool__(self) -> bool:
        return bool(self._average)

    @torch.no_grad()
    def update(self) -> None:
        """Include the weights after an optimiser step."""
        if self._average:
            torch._foreach_lerp_(list(self._average.values()), list(self._trained.values()), 1 - self._decay)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the module's `state_dict` with averaged weights; empty if no average is kept."""
        return {**self._module.state_dict(), **self._average} if self._average else {}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the averages from what `state_dict` returned."""
        for name, average in self._average.items():
            average.copy_(state[name])

    @contextlib.contextmanager
    def swapped_in(self, enabled: bool) -> Iterator[None]:
        """Give the module its averaged weights within the block, if they are kept and `enabled`."""
        if not (enabled and self._average):
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

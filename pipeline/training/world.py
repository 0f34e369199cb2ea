"""The processes that train together."""

from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class DistributedContext:
    """This process among those that train together. With more than one, torch's process group must be set up."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def rows(self, count: int) -> slice:
        """This rank's contiguous part of `count` samples; parts differ by at most one sample and may be empty."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def share(self, noise: Any) -> Any:
        """This rank's clips of the noise of a global batch (a NamedTuple of tensors [B, ...]), on its device."""
        rows = self.rows(len(noise[0]))
        return type(noise)(*(tensor[rows].to(self.device, non_blocking=True) for tensor in noise))

    def sum(self, values: Tensor) -> Tensor:
        """The sum of `values` over all ranks, on the CPU."""
        if self.size == 1:
            return values.cpu()
        total = values.to(self.device, copy=True)
        dist.all_reduce(total)
        return total.cpu()

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag as true if it is so on any rank."""
        return tuple(bool(count) for count in self.sum(torch.tensor(flags, dtype=torch.int32)).tolist())

    def gather(self, value: T) -> list[T]:
        """The `value` of every rank, by rank."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def from_first(self, value: T) -> T:
        """Rank 0's `value`."""
        values = [value]
        if self.size > 1:
            dist.broadcast_object_list(values, src=0)
        return values[0]

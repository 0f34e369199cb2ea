"""The processes that train together: collective operations, and DistributedDataParallel around a module.

Collectives carry tensors and JSON, never pickled objects: their ports take no token, and unpickling runs code.
"""

import json
import os
import warnings
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.training.config import TrainingConfig

MAX_JSON = 1 << 26
"""Longest JSON value that a rank accepts from another, in bytes."""


def part_of(count: int, number: int, parts: int, together: int = 1) -> slice:
    """Return part `number` of `count` samples in `parts` nearly equal ones, each of whole groups of `together`."""
    groups = count // together
    return slice(together * (groups * number // parts), together * (groups * (number + 1) // parts))


@dataclass(frozen=True)
class DistributedContext:
    """This process's rank among those that train together. With more than one, torch's process group must be set up."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which logs and saves."""
        return self.rank == 0

    def rows(self, count: int, together: int = 1) -> slice:
        """Return this rank's contiguous part of `count` samples; parts differ by at most `together` samples.

        So many neighbours are on one rank: samples 0 to `together` - 1, the next ones, and so on.
        """
        return part_of(count, self.rank, self.size, together)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over all ranks, on the CPU."""
        if self.size == 1:
            return values.cpu()
        return self.sum_on_device(values.to(self.device, copy=True)).cpu()

    def sum_on_device(self, values: Tensor) -> Tensor:
        """Overwrite `values`, which are on this rank's device, by their sum over all ranks, and return them."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def any_rank(self, *flags: bool) -> tuple[bool, ...]:
        """Return, for each flag, whether it is true on at least one rank."""
        counts = torch.tensor(flags, dtype=torch.int32)
        # Known to the host already: with a backend for the CPU, nobody waits for a device.
        total = self.sum_on_device(counts) if self.size > 1 and _sums_on_cpu() else self.sum(counts)
        return tuple(bool(count) for count in total.tolist())

    def gather(self, value: Any) -> list[Any]:
        """Return the JSON `value` of every rank, by rank; tuples become lists."""
        text = json.dumps(value).encode()
        if self.size == 1:
            return [json.loads(text)]
        lengths = self.sum(torch.eye(self.size, dtype=torch.int64)[self.rank] * len(text)).tolist()
        longest = max(lengths)
        if not 0 <= min(lengths) <= longest <= MAX_JSON:
            raise ValueError(f"ranks sent values of {lengths} bytes; at most {MAX_JSON} are accepted")
        own = torch.tensor(list(text.ljust(longest)), dtype=torch.uint8, device=self.device)
        received = [torch.empty_like(own) for _ in lengths]
        dist.all_gather(received, own)
        return [json.loads(bytes(values.tolist())) for values in received]

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's JSON `value`; tuples become lists."""
        text = json.dumps(value).encode() if self.is_first else b""
        if self.size == 1:
            return json.loads(text)
        length = int(self.sum(torch.tensor([len(text)])))
        if not 0 < length <= MAX_JSON:
            raise ValueError(f"rank 0 sends a value of {length} bytes; at most {MAX_JSON} are accepted")
        data = torch.frombuffer(bytearray(text or bytes(length)), dtype=torch.uint8).to(self.device)
        return json.loads(self.broadcast_tensor(data, source=0).numpy().tobytes())

    def broadcast_tensor(self, values: Tensor, source: int) -> Tensor:
        """Overwrite `values` by those of rank `source`, and return a copy on the CPU."""
        if self.size > 1:
            dist.broadcast(values, src=source)
        return values.cpu().clone()


def join_group(store: Any, rank: int, size: int, *, use_gpu: bool, timeout: timedelta) -> None:
    """Join torch's process group, whose ranks meet at a store. All ranks must call together."""
    if use_gpu:
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")  # a lost rank ends the others
    # On GPUs, gloo for what is on the CPU: flags that the host knows, for which no rank should wait for its GPU.
    backend = "cpu:gloo,cuda:nccl" if use_gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)


def _sums_on_cpu() -> bool:
    """Return whether torch's process group sums tensors of the CPU."""
    return "cpu:gloo" in dist.get_backend_config()


def wrap_ddp(module: nn.Module, training: TrainingConfig, stage: int, world: DistributedContext) -> nn.Module:
    """Return `module` in DistributedDataParallel with the options of `training`, or unchanged if there is one rank."""
    if world.size == 1:
        return module
    with warnings.catch_warnings():
        # Newer versions of torch rename `broadcast_buffers`; older ones do not know the new name.
        warnings.simplefilter("ignore", FutureWarning)
        ddp = DistributedDataParallel(
            module,
            # The buffers (blur kernels) never change, so there is nothing to broadcast.
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            static_graph=training.uses_static_graph(stage),
        )
    if training.gradient_compression == "bf16":
        ddp.register_comm_hook(None, average_in_bf16)
    return ddp


def average_in_bf16(_: Any, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    """Average a bucket of gradients over the ranks, sent as bf16.

    torch's own hook is restricted to NCCL, although gloo sums bf16 as well.
    """
    gradients: Tensor = bucket.buffer()
    compressed = gradients.to(torch.bfloat16).div_(dist.get_world_size())
    work: Any = dist.all_reduce(compressed, async_op=True)
    future: torch.futures.Future[Tensor] = work.get_future().then(lambda _: gradients.copy_(compressed))
    return future

"""How a module is wrapped so that its gradients are averaged over the ranks."""

import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.training.config import TrainingConfig
from pipeline.training.world import DistributedContext
from vdsm.frames import FrameModel


def distributed(module: nn.Module, training: TrainingConfig, world: DistributedContext) -> nn.Module:
    """`module` in DistributedDataParallel, with the options of `training`; itself where there is one rank."""
    if world.size == 1:
        return module
    with warnings.catch_warnings():
        # Newer versions of torch have another name for `broadcast_buffers`, which older ones do not know.
        warnings.simplefilter("ignore", FutureWarning)
        wrapped = DistributedDataParallel(
            module,
            # The buffers (blur kernels) never change, so there is nothing to broadcast.
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            static_graph=training.static_graph,
        )
    if training.gradient_compression == "bf16":
        wrapped.register_comm_hook(None, average_in_bf16)
    return wrapped


def average_in_bf16(_: Any, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    """The mean over the ranks of a bucket of gradients, sent as bf16.

    torch has such a hook, but lets it be used with NCCL alone; gloo sums bf16 as well.
    """
    whole: Tensor = bucket.buffer()
    sent = whole.to(torch.bfloat16).div_(dist.get_world_size())
    work: Any = dist.all_reduce(sent, async_op=True)
    future: torch.futures.Future[Tensor] = work.get_future().then(lambda _: whole.copy_(sent))
    return future


def compile_parts(frames: FrameModel) -> None:
    """Has image encoder and decoder compiled at their first call. The loss as a whole is not: Pyro's tracing would
    break its graph at every site."""
    for part in (frames.encoder, frames.decoder):
        part.compile(dynamic=False)

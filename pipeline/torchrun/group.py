"""The ranks that torchrun started: who they are, their network, and how rank 0 lets the others begin."""

import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from cluster.errors import UserError
from cluster.network_interface import listen_at
from pipeline.training.distributed import DistributedContext, join_group

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun sets in the environment of each process."""
PATIENCE = timedelta(days=7)
"""How long ranks wait for rank 0 to begin, which may search pairs first. If it fails, torchrun ends them."""


@dataclass(frozen=True)
class Rank:
    """This process among those of torchrun."""

    rank: int
    size: int
    local_rank: int
    one_machine: bool
    """Whether all ranks are on this machine."""

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    @classmethod
    def of_environment(cls) -> "Rank":
        """Return the rank of this process.

        Raises:
            UserError: torchrun did not start it.
        """
        if missing := [name for name in VARIABLES if name not in os.environ]:
            raise UserError(
                f"--launcher torchrun: {missing[0]} is not set, so torchrun did not start this process; use "
                "torchrun --nproc-per-node N -m pipeline.train --launcher torchrun ..."
            )
        numbers = {name: int(os.environ[name]) for name in VARIABLES if name not in ("MASTER_ADDR", "MASTER_PORT")}
        one_machine = numbers["LOCAL_WORLD_SIZE"] == numbers["WORLD_SIZE"]
        return cls(numbers["RANK"], numbers["WORLD_SIZE"], numbers["LOCAL_RANK"], one_machine)


class Group:
    """The process group of all ranks, on loopback if they are on one machine."""

    def __init__(self, rank: Rank, *, use_gpu: bool, timeout_s: float) -> None:
        """Connect to torchrun's store.

        Raises:
            UserError: there are fewer GPUs than ranks on this machine.
        """
        self._rank, self._timeout = rank, timedelta(seconds=timeout_s)
        self._use_gpu = use_gpu
        if use_gpu and torch.cuda.device_count() <= rank.local_rank:
            count = torch.cuda.device_count()
            raise UserError(
                f"training.use_gpu is set, but this machine has {count} GPUs for local rank {rank.local_rank}; lower "
                "--nproc-per-node"
            )
        _set_interfaces(rank)
        self._store: Any = None
        if rank.size > 1:
            self._store, *_ = next(rendezvous("env://", timeout=self._timeout))

    def begin(self, prepare: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Call `prepare` on rank 0 while the others wait, and return its JSON result on every rank.

        Raises:
            UserError: `prepare` raised it, on rank 0; the others end quietly, by SystemExit.
        """
        key = f"vdsm/begin/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        if self._rank.is_first:
            try:
                result = prepare()
            except UserError:
                self._set(key, {"failed": True})
                raise
            self._set(key, result)
            return result
        self._store.wait([key], PATIENCE)
        found: dict[str, Any] = json.loads(self._store.get(key))
        if "failed" in found:
            raise SystemExit(2)
        return found

    def _set(self, key: str, value: dict[str, Any]) -> None:
        if self._store is not None:
            self._store.set(key, json.dumps(value))

    def join(self) -> DistributedContext:
        """Join the process group. All ranks must call together."""
        rank = self._rank
        device = torch.device("cuda", rank.local_rank) if self._use_gpu else torch.device("cpu")
        if self._use_gpu:
            torch.cuda.set_device(device)
        if rank.size > 1:
            join_group(self._store, rank.rank, rank.size, use_gpu=self._use_gpu, timeout=self._timeout)
        return DistributedContext(rank.rank, rank.size, device)

    def leave(self) -> None:
        """Leave the process group, if this rank joined it."""
        if dist.is_initialized():
            dist.destroy_process_group()


def _set_interfaces(rank: Rank) -> None:
    """Make gloo and NCCL listen on loopback, or on the interface that leads to rank 0.

    By default gloo takes the address to which the host name resolves, which others may not reach, or may reach although
    no rank is theirs.
    """
    address = "127.0.0.1"
    if not rank.one_machine:
        target = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        family = socket.getaddrinfo(*target, type=socket.SOCK_DGRAM)[0][0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(target)  # sends nothing
            address = probe.getsockname()[0]
    listen_at(address)

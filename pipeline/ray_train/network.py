"""The network of the workers of a run: torch's store, gloo and NCCL listen on the interface of the cluster only."""

import socket
from datetime import timedelta
from typing import Any

import ray
import ray.util
from ray.train.torch import TorchConfig

from cluster.network_interface import listen_at

STORE_PORTS = range(11_000, 12_000)
"""Ports of torch's store, one per run. Those of gloo and NCCL are ephemeral ports of the system."""


def set_interfaces() -> None:
    """Make gloo and NCCL listen on the same interface as Ray.

    By default gloo takes the address to which the host name resolves. On Debian and Ubuntu that is often 127.0.1.1,
    which workers on other machines cannot reach.
    """
    listen_at(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


def listen(address: str) -> socket.socket:
    """Return a socket that listens on a free port of `STORE_PORTS`, at one address of this machine.

    Raises:
        OSError: the address is of no interface, or every port is in use.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for port in STORE_PORTS:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.bind((address, port))
            sock.listen()
            return sock
        except OSError as error:
            sock.close()
            failure = error
    raise OSError(f"no free port from {STORE_PORTS[0]} to {STORE_PORTS[-1]} at {address} ({failure.strerror})")


_listening: socket.socket | None = None


def open_store() -> tuple[str, int]:
    """Return address and port at which this process, rank 0, will serve torch's store."""
    global _listening
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    _listening = listen(address)
    return address, int(_listening.getsockname()[1])


def join(use_gpu: bool, rank: int, size: int, host: str, port: int, timeout_s: int) -> None:
    """Join torch's process group. All ranks must call together, and rank 0 must have called `open_store`."""
    import torch.distributed as dist

    from pipeline.training.distributed import join_group

    timeout = timedelta(seconds=timeout_s)
    served = _listening.detach() if rank == 0 and _listening is not None else None
    # By its own means, torch would serve the store on all interfaces.
    store = dist.TCPStore(  # type: ignore[attr-defined]
        host, port, size, rank == 0, timeout, master_listen_fd=served, multi_tenant=True
    )
    join_group(store, rank, size, use_gpu=use_gpu, timeout=timeout)


class _Backend(TorchConfig().backend_cls):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(set_interfaces)
        use_gpu = bool(worker_group.get_resources_per_worker().get("GPU", 0))
        size = len(worker_group)
        host, port = worker_group.execute_single(0, open_store)
        joining = [
            worker_group.execute_single_async(rank, join, use_gpu, rank, size, host, port, backend_config.timeout_s)
            for rank in range(size)
        ]
        ray.get(joining)


class NetworkConfig(TorchConfig):
    """Ray Train's set-up of torch.distributed, which listens on the interface of the cluster only."""

    @property
    def backend_cls(self) -> type[_Backend]:
        """Return the class that Ray Train calls once the workers have started."""
        return _Backend

"""The network interface over which the workers of a run communicate."""

import contextlib
import os
import socket
import struct
import sys
from typing import Any

import ray.util
from ray.train.torch import TorchConfig

_SIOCGIFADDR = 0x8915
"""Linux ioctl: get the address of an interface."""


def interface_of(address: str) -> str | None:
    """Return the name of this machine's interface with an IPv4 address; None if it has none, or not on Linux."""
    if sys.platform != "linux":
        return None
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # the interface has no address
                answer = fcntl.ioctl(sock, _SIOCGIFADDR, struct.pack("256s", name.encode()))
                if socket.inet_ntoa(answer[20:24]) == address:
                    return name
    return None


def set_gloo_interface() -> None:
    """Make gloo listen on the same interface as Ray.

    By default it takes the address to which the host name resolves. On Debian and Ubuntu that is often 127.0.1.1, which
    workers on other machines cannot reach.
    """
    address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    if "GLOO_SOCKET_IFNAME" not in os.environ and (name := interface_of(address)):
        os.environ["GLOO_SOCKET_IFNAME"] = name


class _Backend(TorchConfig().backend_cls):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(set_gloo_interface)
        super().on_start(worker_group, backend_config)


class NetworkConfig(TorchConfig):
    """Ray Train's set-up of torch.distributed, with an interface chosen by each worker."""

    @property
    def backend_cls(self) -> type[_Backend]:
        """Return the class that Ray Train calls once the workers have started."""
        return _Backend

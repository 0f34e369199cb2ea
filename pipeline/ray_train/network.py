"""By which network interface the workers of a training talk."""

import contextlib
import os
import socket
import struct
import sys
from typing import Any

import ray.util
from ray.train.torch import TorchConfig

_SIOCGIFADDR = 0x8915
"""Linux: the address of an interface."""


def interface_of(address: str) -> str | None:
    """Name of this machine's interface that has an IPv4 address; none where there is none, or on no Linux."""
    if sys.platform != "linux":
        return None
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # it has no address
                answer = fcntl.ioctl(asking, _SIOCGIFADDR, struct.pack("256s", name.encode()))
                if socket.inet_ntoa(answer[20:24]) == address:
                    return name
    return None


def name_interface() -> None:
    """Have gloo listen where Ray does. By itself it takes the address to which the machine's name resolves, and that is
    127.0.1.1 on many a Debian and Ubuntu: workers of other machines would not reach it."""
    address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    if "GLOO_SOCKET_IFNAME" not in os.environ and (name := interface_of(address)):
        os.environ["GLOO_SOCKET_IFNAME"] = name


class _Backend(TorchConfig().backend_cls):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(name_interface)
        super().on_start(worker_group, backend_config)


class NetworkConfig(TorchConfig):
    """Ray Train's set-up of torch.distributed, after each worker has chosen its interface."""

    @property
    def backend_cls(self) -> type[_Backend]:
        """What Ray Train calls when the workers are there."""
        return _Backend

"""The network interface of this machine that has a given address, for libraries that listen on interfaces by name."""

import contextlib
import os
import socket
import struct
import sys

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


def listen_at(address: str) -> None:
    """Make gloo and NCCL listen on the interface that has an address, unless the user has named one."""
    if name := interface_of(address):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={name}")  # = for exactly this one, not all that begin with it

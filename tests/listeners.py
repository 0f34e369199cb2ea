"""The TCP ports on which processes of this machine listen, as Linux reports them."""

import contextlib
import ipaddress
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Listener(NamedTuple):
    """A listening port."""

    address: str
    port: int
    command: str


def listeners(pids: Iterable[int]) -> list[Listener]:
    """Return the ports on which some processes listen."""
    sockets = {}
    for folder in (Path("/proc", str(pid)) for pid in pids):
        with contextlib.suppress(OSError):  # it has just exited
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            for descriptor in (folder / "fd").iterdir():
                if inode := re.fullmatch(r"socket:\[(\d+)\]", str(descriptor.readlink())):
                    sockets[inode[1]] = command
    return [Listener(address, port, sockets[inode]) for address, port, inode in _all_listeners() if inode in sockets]


def session(leader: int) -> list[int]:
    """Return the processes of a session; those of a local Ray stay in that of their driver."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) == leader:
                found.append(int(folder.name))
    return found


def store_ports() -> set[int]:
    """Return the ports of torch's store."""
    from pipeline.ray_train.network import STORE_PORTS  # which takes seconds to import

    return set(STORE_PORTS)


def _all_listeners() -> list[tuple[str, int, str]]:
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            address, port = fields[1].split(":")
            if fields[3] == "0A":
                found.append((_address(address), int(port, 16), fields[9]))
    return found


def _address(text: str) -> str:
    """Return an address from words of 32 bits, each in the byte order of this machine."""
    words = (bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, len(text), 8))
    address = ipaddress.ip_address(b"".join(words))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)

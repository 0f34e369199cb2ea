"""What Ray has no setting for, changed in its private modules while it starts (constraints.txt pins its version)."""

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def loopback_allowed() -> Iterator[None]:
    """Have Ray accept loopback as the address of a node; on Linux it replaces it by that of a network interface.

    It reads the variable when it is imported, which may have been earlier.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def any_command_line() -> Iterator[None]:
    """Have Ray start in a process whose command line is not UTF-8, such as one that names a folder with other bytes.

    It records the command line of its driver, as text.
    """
    from ray._private import utils

    before: Callable[[], str] = utils.get_entrypoint_name
    utils.get_entrypoint_name = lambda: before().encode("utf-8", "backslashreplace").decode()
    try:
        yield
    finally:
        utils.get_entrypoint_name = before


def serve_replica_on_loopback() -> None:
    """Have the gRPC server of this Serve replica listen on loopback; to be called in the constructor of a deployment.

    By default it listens on all interfaces, asks for no token and unpickles what it receives: anybody could run code.
    Replicas call each other as actors, and do not use it.
    """
    replica: Any = importlib.import_module("ray.serve._private.replica")
    start: Callable[..., int] = replica.add_port_to_grpc_server
    replica.add_port_to_grpc_server = lambda server, address: start(server, address.replace("[::]", "127.0.0.1"))

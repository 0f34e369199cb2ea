"""The ports of a training listen on one interface, and never unpickle what arrives at them."""

import os
import socket
from types import ModuleType

import pytest

from cluster.network_interface import interface_of

pytestmark = pytest.mark.slow  # for the import of Ray Train


@pytest.fixture
def network() -> ModuleType:
    from pipeline.ray_train import network

    return network


def test_a_store_listens_on_its_address_and_in_its_range(network: ModuleType) -> None:
    with network.listen("127.0.0.1") as first, network.listen("127.0.0.1") as second:
        names = [first.getsockname(), second.getsockname()]
    assert {address for address, _ in names} == {"127.0.0.1"}
    assert len({port for _, port in names} & set(network.STORE_PORTS)) == 2


def test_an_address_of_another_machine_is_reported(network: ModuleType) -> None:
    with pytest.raises(OSError, match=r"no free port from 11000 to 11999 at 192\.0\.2\.1"):
        network.listen("192.0.2.1")


def test_gloo_and_nccl_listen_on_the_interface_of_ray(network: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "127.0.0.1")
    network.set_interfaces()
    loopback = interface_of("127.0.0.1")
    assert loopback in [name for _, name in socket.if_nameindex()]
    assert os.environ["GLOO_SOCKET_IFNAME"] == loopback
    assert os.environ["NCCL_SOCKET_IFNAME"] == f"={loopback}"
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.delenv(name)

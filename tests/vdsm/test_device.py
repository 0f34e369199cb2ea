"""Which device a name means, and one line where it is not here."""

import pytest
import torch

from vdsm import device
from vdsm.device import CPU, Readout, device_of, find_device, upload


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Return the numbers of devices of this machine, for the test to change."""
    counts = dict.fromkeys(device.KINDS, 0)
    monkeypatch.setattr(device, "_count", counts.__getitem__)
    return counts


@pytest.mark.parametrize(
    ("counts", "name", "found"),
    [
        ({}, "auto", "cpu"), ({}, "cpu", "cpu"), ({"cuda": 2}, "auto", "cuda"), ({"cuda": 2}, "cpu", "cpu"),
        ({"cuda": 2}, "cuda", "cuda"), ({"cuda": 2}, "cuda:1", "cuda:1"), ({"xpu": 1}, "auto", "xpu"),
        ({"mps": 1}, "mps", "mps"), ({"mps": 1}, "auto", "cpu"),
    ],
)  # fmt: skip
def test_a_name_means_a_device(here: dict[str, int], counts: dict[str, int], name: str, found: str) -> None:
    here |= counts
    assert find_device(name) == torch.device(found)


@pytest.mark.parametrize(
    ("counts", "name", "message"),
    [
        ({}, "cuda", r"device is cuda, but torch finds no cuda device here.*; it finds cpu$"),
        ({"xpu": 1}, "mps", r"device is mps, but torch finds no mps device here; it finds cpu, xpu \(1\)$"),
        ({"cuda": 2}, "cuda:2", r"device is cuda:2, but torch finds 2 cuda devices, numbered from 0$"),
        ({"cuda": 2}, "gpu", r"device is gpu; it must be auto, cpu, cuda, cuda:N, mps or xpu$"),
        ({"cuda": 2}, "cuda:", r"device is cuda:; it must be"),
        ({"cuda": 2}, "cuda:x", r"device is cuda:x; it must be"),
        ({"mps": 1}, "mps:0", r"device is mps:0; it must be"),
    ],
)
def test_a_device_that_is_not_here_is_refused_in_one_line(
    here: dict[str, int], counts: dict[str, int], name: str, message: str
) -> None:
    here |= counts
    with pytest.raises(ValueError, match=message):
        find_device(name)


def test_the_device_of_a_module_is_that_of_its_parameters() -> None:
    assert device_of(torch.nn.Linear(1, 1, device="meta")) == torch.device("meta")
    assert device_of(torch.nn.Identity()) == device_of(object()) == CPU


def test_values_that_are_there_already_are_not_copied() -> None:
    values = torch.ones(2)
    assert upload(values, CPU) is values
    assert Readout(values).read() is values

"""The device that a model computes on."""

from typing import Any

import torch
from torch import Tensor, nn

CPU = torch.device("cpu")
KINDS = ("cuda", "mps", "xpu")
"""Kinds of accelerators that a user can name, in the order in which `auto` looks for one."""


def find_device(name: str) -> torch.device:
    """Return the device named `auto`, `cpu`, `cuda`, `cuda:N`, `mps` or `xpu`; `auto` is an accelerator or the CPU.

    Raises:
        ValueError: there is no such device, or it is not here; the message is one line.
    """
    kind, _, number = name.partition(":")
    here = {kind: _count(kind) for kind in KINDS}
    found = ", ".join(["cpu", *(f"{kind} ({count})" for kind, count in here.items() if count)])
    if name == "auto":
        # The CPU before MPS, which has no float64.
        return next((torch.device(kind) for kind in ("cuda", "xpu") if here[kind]), CPU)
    if name == "cpu":
        return CPU
    if kind not in KINDS or (number and not (number.isdecimal() and kind != "mps")) or (":" in name and not number):
        raise ValueError(f"device is {name}; it must be auto, cpu, cuda, cuda:N, mps or xpu")
    if not here[kind]:
        build = f" (this torch, {torch.__version__}, is a build without CUDA)" if _lacks_cuda(kind) else ""
        raise ValueError(f"device is {name}, but torch finds no {kind} device here{build}; it finds {found}")
    if number and int(number) >= here[kind]:
        raise ValueError(f"device is {name}, but torch finds {here[kind]} {kind} devices, numbered from 0")
    return torch.device(name)


def _count(kind: str) -> int:
    """Return the number of devices of a kind."""
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    module = getattr(torch, kind, None)
    return int(module.device_count()) if module is not None and module.is_available() else 0


def _lacks_cuda(kind: str) -> bool:
    return kind == "cuda" and torch.version.cuda is None and torch.version.hip is None


def device_of(model: object) -> torch.device:
    """Return the device of a module's parameters; the CPU for a model without any, or that is no module."""
    first = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return CPU if first is None else first.device


def upload(values: Tensor, device: torch.device) -> Tensor:
    """Return `values` on `device`; from the CPU, they are copied while the host continues."""
    if device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()  # from other memory, the copy would wait for the device
    return values.to(device, non_blocking=values.device.type == "cpu")


class Readout:
    """A small tensor on its way to the host, which continues meanwhile."""

    def __init__(self, values: Tensor) -> None:
        """Start the copy of `values`, which must not change before `read`."""
        self._copied: Any = None
        self._values = values
        if values.device.type in ("cuda", "xpu"):
            self._values = values.to("cpu", non_blocking=True)  # into pinned memory
            module: Any = getattr(torch, values.device.type)
            self._copied = module.Event()
            self._copied.record(module.current_stream(values.device))

    def read(self) -> Tensor:
        """Return the values on the CPU, once the device has computed them."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._values.cpu()

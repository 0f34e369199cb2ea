"""A second device without hardware: torch takes its tensors for those of an accelerator; their numbers are on the CPU.

It is as strict as a GPU where that can be checked: tensors of two devices never meet in an operation, random numbers of
the CPU's generators are not drawn on it, and numbers leave it by a copy alone. Whatever makes the host wait for a GPU
is counted in `waits`, by the function of this repository that caused it. Results are those of the CPU.

What it cannot show: autocast, streams and pinned memory, and kernels that round differently.

This is the only file that uses torch's private interface for such a device. Importing it changes the process for good,
so tests do that in a process of their own. It raises `MovedInterfaceError` where torch has moved the interface.
"""

import collections
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, library

ROOT = str(Path(__file__).resolve().parents[1]) + "/"
NAME = "mock"


class MovedInterfaceError(ImportError):
    """This version of torch has no such interface, or another one."""


try:
    from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

    class _Module(_DummyBackendModule):
        def get_amp_supported_dtype(self) -> list[torch.dtype]:
            return [torch.bfloat16, torch.float16]

    # Otherwise torch.tensor(..., device=DEVICE) lifts a tensor that is on the device already, and fails.
    torch._C._set_only_lift_cpu_tensors(True)
    _setup_privateuseone_for_python_backend(NAME, _Module())
except (ImportError, AttributeError, TypeError, RuntimeError) as error:
    raise MovedInterfaceError(f"torch {torch.__version__}: {error}") from error

DEVICE = torch.device(NAME, 0)
CPU = torch.device("cpu")
aten = torch.ops.aten
COPIES = {aten.copy_.default, aten._to_copy.default}
TAKES_INDICES = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
RESIZING_FACTORIES = ("arange", "arange.start", "arange.start_step", "eye", "eye.m", "linspace", "randperm")
"""Made by torch as an empty tensor whose shape is then changed, which a wrapper would not notice."""

waits: collections.Counter[str] = collections.Counter()
"""How often the host would have waited for the device, by function."""


class DeviceTensor(Tensor):
    """A tensor on the device; `on_cpu` holds its numbers."""

    on_cpu: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, on_cpu: Tensor) -> "DeviceTensor":
        layout = {"strides": on_cpu.stride(), "storage_offset": on_cpu.storage_offset(), "dtype": on_cpu.dtype}
        with torch.inference_mode(False):  # a wrapper cannot share the version counter of a view in inference mode
            made: DeviceTensor = torch.Tensor._make_wrapper_subclass(cls, on_cpu.shape, device=DEVICE, **layout)  # type: ignore[attr-defined]
        made.on_cpu = on_cpu
        return made

    def __repr__(self, **_: Any) -> str:
        return f"DeviceTensor({self.on_cpu})"

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _is_composite(op):  # in inference mode alone they arrive whole
            return op.decompose(*args, **(kwargs or {}))
        return run(op, *args, **(kwargs or {}))


@functools.cache
def _is_composite(op: Any) -> bool:
    return op is not aten.lstm.input and bool(op._can_decompose())


class Generator(torch.Generator):
    """A generator of random numbers, of this device if it is asked for."""

    made: ClassVar[dict[int, "Generator"]] = {}
    """Those of this device, by their addresses: operations receive another Python object for the same generator."""

    def __new__(cls, device: Any = "cpu") -> Any:
        if torch.device(device).type != NAME:
            return torch._C.Generator(device)
        generator = super().__new__(cls)
        cls.made[generator._cdata] = generator  # type: ignore[attr-defined]
        return generator

    def __init__(self, device: Any = "cpu") -> None:
        pass

    @property
    def device(self) -> torch.device:
        return DEVICE


def run(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Compute an operation that has a tensor of the device among its arguments, or is to return one."""
    leaves = list(_leaves((*args, *kwargs.values())))
    ours = [leaf for leaf in leaves if isinstance(leaf, DeviceTensor)]
    # 0-dim tensors of the CPU count as numbers, as on a GPU.
    foreign = [
        leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, DeviceTensor) and leaf.dim()
    ]
    wanted = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
    if ours and foreign and op not in COPIES | TAKES_INDICES:
        raise RuntimeError(f"{op}: expected all tensors on one device, found {DEVICE} and {foreign[0].device}")
    if any(isinstance(leaf, torch._C.Generator) and leaf._cdata not in Generator.made for leaf in leaves):
        raise RuntimeError(f"{op}: expected a generator of {DEVICE}, found one of the CPU")
    if _waits(op, args, kwargs, ours, foreign, wanted):
        waits[caller()] += 1
    plain = {name: _on_cpu(value) for name, value in kwargs.items()} | ({"device": CPU} if wanted is not None else {})
    result = op(*_on_cpu(args), **plain)
    if changed := _changed_arguments(op):
        given = [kwargs[name] if name in kwargs else args[position] for position, name in changed]
        return given[0] if len(given) == 1 else tuple(given)
    return result if wanted == CPU else _on_device(result)


def _leaves(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _leaves(value)
        else:
            yield value


def _on_cpu(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_on_cpu, value))
    return value.on_cpu if isinstance(value, DeviceTensor) else value


def _on_device(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_on_device, value))
    return DeviceTensor(value) if isinstance(value, Tensor) else value


@functools.cache
def _changed_arguments(op: Any) -> tuple[tuple[int, str], ...]:
    """Return position and name of the arguments that an operation changes and returns."""
    aliases = [returned.alias_info.before_set for returned in op._schema.returns if _is_written(returned)]
    named = [
        (position, argument.name)
        for position, argument in enumerate(op._schema.arguments)
        if _is_written(argument) and argument.alias_info.before_set in aliases
    ]
    return tuple(named)


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _waits(op: Any, args: Any, kwargs: Any, ours: list[Any], foreign: list[Any], wanted: Any) -> bool:
    """Return whether the host would wait for a GPU."""
    if op in COPIES:
        to_cpu = not isinstance(args[0], DeviceTensor) if op is aten.copy_.default else wanted == CPU
        crosses = bool(ours) and (to_cpu or not isinstance(args[op is aten.copy_.default], DeviceTensor))
        is_async = kwargs.get("non_blocking") or (op is aten.copy_.default and len(args) > 2 and args[2])
        return crosses and not (is_async and not to_cpu)
    if op in TAKES_INDICES:  # one of the CPU is copied first, and one of booleans counts those that are true
        indices = [index for index in args[1] if index is not None]
        return bool(foreign) or any(index.dtype in (torch.bool, torch.uint8) for index in indices)
    # The value of a result, or its shape, depends on numbers of the device.
    return bool({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(op.tags))


def caller() -> str:
    """Return file and name of the innermost function of this repository, other than this file's."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(ROOT) and path != __file__ and "/.venv/" not in path:
            return f"{path.removeprefix(ROOT)}:{frame.f_code.co_qualname}"
        frame = frame.f_back
    return "torch"


class _Lstm(torch.autograd.Function):
    """`torch.lstm`. A device has a kernel of its own for it, which has no counterpart on CPUs."""

    @staticmethod
    def forward(ctx: Any, settings: tuple[Any, ...], *tensors: Any) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            plain = [tensor.on_cpu.detach().requires_grad_(tensor.requires_grad) for tensor in tensors]
            inputs, hidden, cell, *weights = plain
            outputs = torch.lstm(inputs, (hidden, cell), weights, *settings)
        ctx.plain, ctx.outputs = plain, outputs
        return tuple(DeviceTensor(output.detach()) for output in outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        trained = [tensor for tensor in ctx.plain if tensor.requires_grad]
        found = iter(torch.autograd.grad(ctx.outputs, trained, [gradient.on_cpu for gradient in gradients]))
        return None, *(DeviceTensor(next(found)) if tensor.requires_grad else None for tensor in ctx.plain)


def lstm(inputs: Tensor, states: list[Tensor], weights: list[Tensor], *settings: Any) -> Any:
    """Compute `torch.lstm` of tensors of the device."""
    return _Lstm.apply(settings, inputs, *states, *weights)


torch.Generator = Generator  # type: ignore[misc]
_everything = library.Library("_", "IMPL")
_everything.fallback(run, "PrivateUse1")
_aten = library.Library("aten", "IMPL")
for _name in RESIZING_FACTORIES:
    _base, _, _overload = _name.partition(".")
    _aten.impl(_name, functools.partial(run, getattr(getattr(aten, _base), _overload or "default")), "PrivateUse1")
_aten.impl("lstm.input", lstm, "AutogradPrivateUse1")

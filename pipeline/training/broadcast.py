"""The state of a run, sent by rank 0 to the other ranks, so that one process alone reads it from storage.

Plain values travel as JSON and tensors as their bytes, never as pickled objects.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pipeline.training.distributed import DistributedContext

Entry = tuple[str, Any]
"""The kind of a value, and its content as JSON."""
_DTYPES = {
    str(dtype): dtype
    for dtype in (
        torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int8, torch.int16, torch.int32,
        torch.int64, torch.bool,
    )
}  # fmt: skip


def broadcast_state(content: Mapping[str, Any] | None, world: DistributedContext) -> dict[str, Any] | None:
    """Return the `content` of rank 0 on every rank: dicts, lists, tuples, plain values and tensors, on the CPU.

    All ranks must call together; that of the others is ignored.
    """
    if world.size == 1:
        return None if content is None else dict(content)
    tensors: list[Tensor] = []
    received = world.broadcast(_flatten(content, tensors) if world.is_first else None)
    if not world.is_first:
        tensors = _empty(received)
    for tensor in tensors:
        _send(tensor, world)
    content = _unflatten(received, iter(tensors))
    return None if content is None else dict(content)


def _flatten(value: Any, tensors: list[Tensor]) -> Entry:
    """Describe a value, and append its tensors to a list."""
    if isinstance(value, Tensor):
        tensors.append(value.detach().cpu().contiguous())
        return "tensor", [str(value.dtype), list(value.shape)]
    if isinstance(value, Mapping):
        return "dict", [[_flatten(key, tensors), _flatten(item, tensors)] for key, item in value.items()]
    if isinstance(value, tuple | list):
        return type(value).__name__ if type(value) in (tuple, list) else "tuple", [_flatten(v, tensors) for v in value]
    if value is None or type(value) in (bool, int, float, str):
        return "plain", value
    raise TypeError(f"a state holds a {type(value).__name__}, which is not sent to other ranks")


def _empty(entry: Entry) -> list[Tensor]:
    """Return a tensor for each of those that were described, in the same order."""
    kind, content = entry
    if kind == "tensor":
        name, shape = content
        return [torch.empty(shape, dtype=_DTYPES[name])]
    if kind == "dict":
        return [tensor for pair in content for part in pair for tensor in _empty(part)]
    return [] if kind == "plain" else [tensor for item in content for tensor in _empty(item)]


def _unflatten(entry: Entry, tensors: Any) -> Any:
    kind, content = entry
    if kind == "tensor":
        return next(tensors)
    if kind == "dict":
        return {_unflatten(key, tensors): _unflatten(value, tensors) for key, value in content}
    if kind == "plain":
        return content
    items = [_unflatten(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items


def _send(tensor: Tensor, world: DistributedContext) -> None:
    """Overwrite a tensor on the CPU by that of rank 0."""
    if tensor.numel() == 0:
        return
    data = tensor.reshape(-1).view(torch.uint8)  # bytes, because not every backend sends every type
    data.copy_(world.broadcast_tensor(data.to(world.device), source=0))

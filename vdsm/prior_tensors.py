"""Fitted priors as named tensors, for files that hold tensors alone: `priors.static.blocks.0.means` and the like."""

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from vdsm.code_density import Block, FittedPriors

PREFIX = "priors."
"""Begin of the name of each tensor."""
MAX_BLOCKS = 4096
"""Largest accepted number of blocks of one density."""
_PARTS = tuple(field.name for field in fields(Block))
_NAME = re.compile(rf"priors\.(static|dynamics)\.(?:(mean|mixing)|blocks\.(\d{{1,4}})\.({'|'.join(_PARTS)}))")


def to_tensors(priors: FittedPriors) -> dict[str, Tensor]:
    """Return the tensors of fitted priors by name."""
    found: dict[str, Tensor] = {}
    for code, density in priors.to_dict().items():
        found |= {f"{PREFIX}{code}.{part}": density[part] for part in ("mean", "mixing")}
        for number, block in enumerate(density["blocks"]):
            found |= {f"{PREFIX}{code}.blocks.{number}.{part}": block[part] for part in _PARTS}
    return {name: tensor.detach().cpu().clone() for name, tensor in found.items()}


def from_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the content of `FittedPriors.to_dict` that `to_tensors` made tensors of; it is still to be checked.

    Raises:
        ValueError: a name or a type is not that of a part of a fitted prior.
    """
    found: dict[str, Any] = {}
    blocks: dict[tuple[str, int], dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _NAME.fullmatch(name)
        is_index = name.endswith(".coordinates")
        if match is None or (tensor.dtype == torch.int64) != is_index or not (is_index or tensor.is_floating_point()):
            raise ValueError(f"the fitted priors are damaged: {name:.80} is none of their parts")
        code, part, number, block_part = match.groups()
        if part:
            found.setdefault(code, {})[part] = tensor
        else:
            blocks.setdefault((code, int(number)), {})[block_part] = tensor
    for code, density in found.items():
        count = sum(one == code for one, _ in blocks)
        if count > MAX_BLOCKS or any((code, number) not in blocks for number in range(count)):
            raise ValueError(f"the fitted priors are damaged: the blocks of the {code} code are incomplete")
        density["blocks"] = [blocks[code, number] for number in range(count)]
    return found

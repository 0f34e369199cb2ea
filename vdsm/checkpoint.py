"""Checkpoints: one file each, whole or not there at all.

A checkpoint is what `torch.save` writes for a dict of tensors and plain values, followed by a line with the SHA-256 of
all bytes before it. `torch.load` reads such a file too; `load` reads it only after the hash has been found right, and
never runs code from it (`weights_only=True`).
"""

import hashlib
import os
import pickle
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vdsm.config import ModelConfig

if TYPE_CHECKING:
    from vdsm.disentangler import Disentangler

_MARK = b"\nvdsm-checkpoint-sha256="
_FOOTER_BYTES = len(_MARK) + 64 + 1
_CHUNK_BYTES = 1 << 22


def save(state: Mapping[str, Any], path: Path) -> str:
    """Writes `state` to `path` and returns its SHA-256. A reader, or a crash, finds the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("w+b") as file:
            torch.save(dict(state), file)
            file.seek(0)
            digest = _sha256(file, os.fstat(file.fileno()).st_size)
            file.seek(0, os.SEEK_END)
            file.write(_MARK + digest.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return digest


def load(path: Path) -> dict[str, Any]:
    """What `save` wrote, with all tensors on the CPU.

    Raises ValueError, naming the file and what to do, where it is missing, truncated, damaged, or holds code.
    """
    verify(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError) as error:
        raise ValueError(
            f"{path}: holds something other than tensors and plain values and is not loaded, for it could run code; "
            "use a checkpoint written by this program"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"{path}: holds a {type(state).__name__}, not a checkpoint; use one written by this program")
    return state


def verify(path: Path) -> str:
    """The SHA-256 that `path` carries, after it was found right. Raises ValueError otherwise."""
    try:
        with path.open("rb") as file:
            body = os.fstat(file.fileno()).st_size - _FOOTER_BYTES
            if body <= 0:
                raise ValueError(f"{path}: is truncated; delete it and go on from an earlier checkpoint")
            digest = _sha256(file, body)
            footer = file.read()
    except FileNotFoundError:
        raise ValueError(f"{path}: no such checkpoint; train first, or name another one") from None
    except IsADirectoryError:
        raise ValueError(f"{path}: is a folder; name the checkpoint file in it") from None
    if not footer.startswith(_MARK):
        raise ValueError(
            f"{path}: is truncated, or was not written by this program; delete it and go on from an earlier checkpoint"
        )
    if footer != _MARK + digest.encode() + b"\n":
        raise ValueError(f"{path}: is damaged (SHA-256 differs); delete it and go on from an earlier checkpoint")
    return digest


def _sha256(file: Any, length: int) -> str:
    """Of the next `length` bytes of `file`."""
    digest = hashlib.sha256()
    while length > 0:
        chunk = file.read(min(length, _CHUNK_BYTES))
        if not chunk:
            break
        digest.update(chunk)
        length -= len(chunk)
    return digest.hexdigest()


def disentangler_of(state: Mapping[str, Any], path: Path) -> "Disentangler":
    """The model that a loaded checkpoint holds; `path` is named in errors."""
    from vdsm.disentangler import Disentangler

    missing = {"model_config", "model"} - set(state)
    if missing:
        raise ValueError(f"{path}: has no {' and no '.join(sorted(missing))}; use a checkpoint of `vdsm train`")
    try:
        model = Disentangler(ModelConfig(**state["model_config"]))
        # A training that averages its weights keeps both, and says which of them are to be used.
        model.load_state_dict(state[state.get("used", "model")])
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ValueError(f"{path}: does not fit this version of the model ({reason}); train again") from error
    model.temperature = float(state.get("temperature", model.temperature))
    return model.eval()


def load_disentangler(path: Path) -> "Disentangler":
    """The model of a checkpoint, in evaluation mode on the CPU. Raises ValueError as `load` does."""
    return disentangler_of(load(path), path)

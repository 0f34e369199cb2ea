"""Checkpoints: one file each, written atomically and verified on reading.

A checkpoint is the output of `torch.save` for a dict of tensors and plain values, followed by a line with the SHA-256
of all bytes before it. `torch.load` can read such a file too. `load` first verifies the hash, and never runs code from
the file (`weights_only=True`).
"""

import hashlib
import os
import pickle
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vdsm.code_density import FittedPriors
from vdsm.config import ModelConfig
from vdsm.foreign_file import is_unpacked_zip, open_regular

if TYPE_CHECKING:
    from vdsm.disentangler import Disentangler

MODEL_CONFIG = "model_config"
"""Key of the model's configuration, as plain values."""
WEIGHTS = "model"
"""Key of the weights last trained."""
USED = "used"
"""Key of the name of the key whose weights are to be used; absent: `WEIGHTS`."""
TEMPERATURE = "temperature"
"""Key of the temperature of the static code's softmax."""

PRIORS = "priors"
"""Key of the fitted priors; absent before the end of a stage."""

_MARK = b"\nvdsm-checkpoint-sha256="
_FOOTER_BYTES = len(_MARK) + 64 + 1
_CHUNK_BYTES = 1 << 22


def save(state: Mapping[str, Any], path: Path) -> str:
    """Write `state` to `path` and return its SHA-256. After a crash, `path` holds either the old or the new file."""
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
    """Load a checkpoint written by `save`, with all tensors on the CPU.

    Raises:
        ValueError: the file is missing, truncated, damaged, or holds code; the message names file and remedy.
    """
    verify(path)
    return _read(path)


def position_in(path: Path) -> tuple[int, int] | None:
    """Return the stage and the step that a verified checkpoint is of, or None if it does not say. No weight is read.

    Raises:
        ValueError: it holds code, or is no checkpoint.
    """
    return position_of(_read(path, mapped=True))


def position_of(content: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the stage and the step that the content of a checkpoint is of, or None if it does not say."""
    stage, step = content.get("stage"), content.get("step")
    return (stage, step) if type(stage) is int and type(step) is int else None


def _read(path: Path, *, mapped: bool = False) -> dict[str, Any]:
    try:
        if not is_unpacked_zip(path):
            raise ValueError("not as torch.save writes it")
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError) as error:
        raise ValueError(
            f"{path}: holds something other than tensors and plain values, which could run code, and was not loaded; "
            "use a checkpoint written by this program"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"{path}: holds a {type(state).__name__}, not a checkpoint; use one written by this program")
    return state


def verify(path: Path) -> str:
    """Check `path` against the SHA-256 that it carries, and return it. Raise ValueError if they differ."""
    try:
        with open_regular(path) as file:
            body = os.fstat(file.fileno()).st_size - _FOOTER_BYTES
            if body <= 0:
                raise ValueError(f"{path}: is truncated; delete it and resume from an earlier checkpoint")
            digest = _sha256(file, body)
            footer = file.read()
    except FileNotFoundError:
        raise ValueError(f"{path}: no such checkpoint; train first, or give another path") from None
    except IsADirectoryError:
        raise ValueError(f"{path}: is a folder; give the path of a checkpoint file in it") from None
    if not footer.startswith(_MARK):
        raise ValueError(
            f"{path}: is truncated, or was not written by this program; delete it and resume from an earlier checkpoint"
        )
    if footer != _MARK + digest.encode() + b"\n":
        raise ValueError(f"{path}: is damaged (SHA-256 mismatch); delete it and resume from an earlier checkpoint")
    return digest


def _sha256(file: Any, length: int) -> str:
    """Return the SHA-256 of the next `length` bytes of `file`."""
    digest = hashlib.sha256()
    while length > 0:
        chunk = file.read(min(length, _CHUNK_BYTES))
        if not chunk:
            break
        digest.update(chunk)
        length -= len(chunk)
    return digest.hexdigest()


def disentangler_of(state: Mapping[str, Any], path: Path) -> "Disentangler":
    """Build the model of a loaded checkpoint, in evaluation mode; errors (ValueError) name `path`."""
    from vdsm.disentangler import Disentangler

    missing = {MODEL_CONFIG, WEIGHTS} - set(state)
    if missing:
        raise ValueError(f"{path}: has no {' and no '.join(sorted(missing))}; use a checkpoint of `vdsm train`")
    try:
        model = Disentangler(ModelConfig(**state[MODEL_CONFIG]))
        # A run that averages its weights stores both, and which of them to use.
        model.load_state_dict(state[state.get(USED, WEIGHTS)])
        if PRIORS in state:
            sizes = model.config.num_experts, model.config.dynamics_size
            model.fitted_priors = FittedPriors.from_dict(state[PRIORS], *sizes)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ValueError(f"{path}: does not fit this version of the model ({reason}); train again") from error
    model.temperature = float(state.get(TEMPERATURE, model.temperature))
    return model.eval()


def load_disentangler(path: Path) -> "Disentangler":
    """Load the model of a checkpoint, in evaluation mode on the CPU. Raise ValueError as `load` does."""
    return disentangler_of(load(path), path)

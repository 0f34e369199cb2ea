"""Exported models: a folder that holds a trained model for users, without the state of its training.

<folder>/config.json         the settings of the model, how it was trained, and the SHA-256 of its weights; written last
         model.safetensors   the weights, and the fitted priors if there are any
         README.md           the model card; not read
         sample.gif          what it generates; not read

Such a folder may come from anywhere. Nothing in it is executed, and it is checked before a model is built: keys, types
and ranges of config.json, hash, names, types and shapes of the tensors.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from vdsm.code_density import FittedPriors
from vdsm.config import ModelConfig
from vdsm.disentangler import Disentangler
from vdsm.foreign_file import open_regular
from vdsm.foreign_json import Fields, read_json
from vdsm.prior_tensors import PREFIX, from_tensors, to_tensors

CONFIG, WEIGHTS, CARD, SAMPLE = "config.json", "model.safetensors", "README.md", "sample.gif"
FORMAT, VERSION = "vdsm-model", 1
DTYPES = {"float32": torch.float32, "float16": torch.float16}
"""Storage types of weights. Models compute in float32 whatever the storage type."""
_HEADER_BYTES = 100_000_000
"""Longest header of a safetensors file; the limit of the format's own library."""


@dataclass(frozen=True)
class ModelFacts:
    """What users of a model need to know besides its settings."""

    clip_frames: int
    """Frames per clip with which the sequence stage was trained."""
    sequence_stage: bool
    """Whether the sequence stage is trained, so that there are dynamics codes."""
    fps: float | None = None
    """Frames per second of the training clips; None if not known."""
    origin: Mapping[str, str | int] = field(default_factory=dict)
    """What it was trained from: `checkpoint_sha256`, `data_sha256`, `stage` and `step`."""


def is_model_folder(folder: Path) -> bool:
    """Return whether a folder holds an exported model, complete or not."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def write_model_folder(folder: Path, model: Disentangler, facts: ModelFacts, *, dtype: str = "float32") -> None:
    """Write a model to a local folder. Equal models give equal bytes.

    Args:
        folder: is created if needed.
        model: its weights and fitted priors are written, and its temperature.
        facts: stored with it.
        dtype: storage type of the weights, a key of `DTYPES`; float32 keeps every bit.

    Raises:
        ValueError: a weight does not fit the storage type.
    """
    from safetensors.torch import save_file

    # Copies: tensors that share memory, such as views, are refused by the format.
    tensors = {name: tensor.detach().to("cpu", DTYPES[dtype], copy=True) for name, tensor in _weights(model).items()}
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"the weight {name} is not finite as {dtype}; export the model as float32")
    if model.fitted_priors is not None:
        tensors |= to_tensors(model.fitted_priors)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in sorted(tensors.items())}, folder / WEIGHTS)
    content = {
        "format": FORMAT,
        "format_version": VERSION,
        "model": asdict(_without_path(model.config)),
        "temperature": model.temperature,
        **asdict(facts),
        "weights": {"sha256": _sha256(folder / WEIGHTS), "dtype": dtype},
    }
    (folder / CONFIG).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_model_folder(folder: Path) -> tuple[Disentangler, ModelFacts]:
    """Return the model in a local folder, in evaluation mode on the CPU, and its facts.

    Raises:
        ValueError: a file is missing, damaged, or not of an exported model; the message names it in one line.
    """
    path = folder / CONFIG
    fields = Fields(read_json(path), path)
    if fields.text("format") != FORMAT:
        raise ValueError(f"{path}: is not the config.json of an exported model; give a folder that `vdsm export` wrote")
    if (version := fields.number("format_version")) > VERSION:
        raise ValueError(f"{path}: has format_version {version}, this version reads up to {VERSION}; update vdsm")
    config = fields.dataclass("model", ModelConfig)
    temperature = fields.positive("temperature")
    facts = ModelFacts(
        clip_frames=fields.number("clip_frames", at_least=1),
        sequence_stage=fields.flag("sequence_stage"),
        fps=fields.positive("fps", optional=True),
        origin=fields.origin("origin"),
    )
    weights = Fields(fields.section("weights"), path, "weights.")
    weights.choice("dtype", tuple(DTYPES))
    model = _read_weights(folder / WEIGHTS, weights.sha256("sha256"), config)
    model.temperature = temperature
    return model.eval(), facts


def _weights(model: Disentangler) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}


def _without_path(config: ModelConfig) -> ModelConfig:
    """Return the settings without the folder of the file that the training started from, which is of no use to others.

    Its name stays: a network that was given weights has other layers than one that was not.
    """
    return replace(config, encoder_weights=config.encoder_weights and Path(config.encoder_weights).name)


def _read_weights(path: Path, sha256: str, config: ModelConfig) -> Disentangler:
    from safetensors import SafetensorError, safe_open

    _check_header(path)
    if _sha256(path) != sha256:
        raise ValueError(f"{path}: is not the file that {CONFIG} names (SHA-256 mismatch); get both files again")
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            kinds = {file.get_slice(name).get_dtype() for name in shapes if not name.startswith(PREFIX)}
            _check_tensors(path, shapes, kinds, config)
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in shapes}
    except SafetensorError as error:
        raise ValueError(f"{path}: is not a readable safetensors file ({error}); get it again") from None
    if damaged := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise ValueError(f"{path}: the tensor {damaged[0]} is not finite; get it again")
    model = _build(config)
    priors = {name: tensors.pop(name) for name in list(tensors) if name.startswith(PREFIX)}
    complete = model.state_dict()
    complete.update({name: tensor.float() for name, tensor in tensors.items()})
    model.load_state_dict(complete)
    if priors:
        try:
            content = from_tensors(priors)
            model.fitted_priors = FittedPriors.from_dict(content, config.num_experts, config.dynamics_size)
        except ValueError as error:
            raise ValueError(f"{path}: {error}; get it again") from None
    return model


def _build(config: ModelConfig) -> Disentangler:
    """Return an untrained model, without drawing from the caller's random numbers."""
    with torch.random.fork_rng(devices=[]):
        return Disentangler(config)


def _check_header(path: Path) -> None:
    """Check that a file begins as a safetensors file does: the length of a JSON object, and the object."""
    try:
        with open_regular(path) as file:
            begin, size = file.read(9), os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise ValueError(f"{path}: is missing; get the complete folder that `vdsm export` wrote") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); get it again") from None
    length = int.from_bytes(begin[:8], "little")
    if len(begin) < 9 or begin[8:] != b"{" or length > min(size - 8, _HEADER_BYTES):
        raise ValueError(
            f"{path}: is not a safetensors file, and was not read further (a pickle could run code); get it again"
        )


def _check_tensors(path: Path, shapes: Mapping[str, tuple[int, ...]], kinds: set[str], config: ModelConfig) -> None:
    """Check names, types and shapes of the weights against those of the model, before it takes any memory."""
    if not kinds <= {"F32", "F16"}:
        raise ValueError(f"{path}: holds weights of type {', '.join(sorted(kinds))}; they must be F32 or F16")
    try:
        with torch.device("meta"):
            expected = {name: tuple(tensor.shape) for name, tensor in _weights(Disentangler(config)).items()}
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(f"{path.with_name(CONFIG)}: describes no model ({error})") from None
    weights = {name: shape for name, shape in shapes.items() if not name.startswith(PREFIX)}
    if differing := sorted(
        name for name in expected.keys() | weights.keys() if expected.get(name) != weights.get(name)
    ):
        first = differing[0]
        raise ValueError(
            f"{path}: does not fit {CONFIG}: {first} is {_shown(weights.get(first))} and must be "
            f"{_shown(expected.get(first))}; get both files again"
        )


def _shown(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else "x".join(map(str, shape)) or "a number"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

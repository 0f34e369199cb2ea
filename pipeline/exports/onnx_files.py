"""ONNX files of a model's encoder and decoder, with the inputs and outputs of `pipeline.exports.programs`.

They are written from programs of torch.export, and run by ONNX Runtime before they are kept. The batch size is free.
"""

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cluster.errors import UserError, first_line
from pipeline.exports.programs import example_modules, exported_program
from vdsm.decoder import ExpertTransposedConv
from vdsm.disentangler import Disentangler
from vdsm.model_folder import ModelFacts

Names = tuple[str, ...]
ONNX_FILES = ("encode.onnx", "decode.onnx")
NAMES = ((("frames",), ("static", "pose", "dynamics")), (("static", "moving"), ("frames",)))
"""Names of the inputs and outputs of both."""
TOLERANCE = 1e-4
"""Largest accepted difference of any number from the model's."""
BATCHES = (1, 2, 5)
"""Numbers of clips with which each file is tried."""


def write_onnx(folder: Path, model: Disentangler, facts: ModelFacts) -> float:
    """Write both files, and return the largest difference of their numbers from the model's.

    Raises:
        UserError: it is larger than `TOLERANCE`, or this version of torch cannot write the model.
    """
    convertible = copy.deepcopy(model)
    for layer in convertible.modules():
        if isinstance(layer, ExpertTransposedConv):
            layer.largest_folded = 1 << 30  # ONNX has no convolution whose number of groups is free
    modules = zip(ONNX_FILES, NAMES, example_modules(convertible, facts), example_modules(model, facts), strict=True)
    return max(
        write_onnx_file(folder / name, names, module, example, original, batches=BATCHES)
        for name, names, (module, example), (original, _) in modules
    )


def write_onnx_file(
    path: Path, names: tuple[Names, Names], module: nn.Module, example: tuple[Tensor, ...], original: nn.Module,
    *, batches: Sequence[int] | None,
) -> float:  # fmt: skip
    """Write a module, and return the largest difference of its numbers from those of `original`.

    Args:
        path: the file.
        names: of inputs and outputs.
        module: what is written, in evaluation mode.
        example: its inputs.
        original: what it stands for.
        batches: numbers of clips to try; with None, the number of clips is that of the example.

    Raises:
        UserError: it is larger than `TOLERANCE`, or this version of torch cannot write the module.
    """
    try:
        with _quiet():
            program = exported_program(module, example) if batches else torch.export.export(module, example)
            written = torch.onnx.export(
                program, example, dynamo=True, input_names=names[0], output_names=names[1], verbose=False
            )
            assert written is not None, "torch.onnx.export returns a program if it is given no file"
            written.save(path, external_data=False)
        difference = _difference(path, original, example, batches)
    except (ImportError, UserError):
        raise
    except Exception as error:  # many kinds, all of them about what ONNX and its runtime support
        reason = first_line(error)
        raise UserError(f"{path.name}: this model cannot be written as ONNX: {reason:.200}; omit --onnx") from error
    if not difference <= TOLERANCE:
        raise UserError(f"{path.name}: its numbers differ from the model's by {difference:.2g}; omit --onnx")
    return difference


def _difference(path: Path, module: nn.Module, example: tuple[Tensor, ...], batches: Sequence[int] | None) -> float:
    """Return the largest difference over several numbers of clips, that of the export and others."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    tried = [example] if batches is None else [
        tuple(part.repeat(2, *[1] * (part.ndim - 1))[:count].contiguous() for part in example) for count in batches
    ]  # fmt: skip
    largest = 0.0
    for inputs in tried:
        with torch.no_grad():
            expected = module(*inputs)
        found = session.run(None, {name: part.numpy() for name, part in zip(names, inputs, strict=True)})
        pairs = zip(found, expected if isinstance(expected, tuple) else (expected,), strict=True)
        largest = max(largest, *(float(np.abs(one - two.numpy()).max()) for one, two in pairs))
    return largest


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter prints, logs and warns of from the output of the command."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

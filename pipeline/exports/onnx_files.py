"""ONNX files of a model's encoder and decoder, with the inputs and outputs of `pipeline.exports.programs`.

They are written from programs of torch.export, and run by ONNX Runtime before they are kept. The batch size is free.
"""

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cluster.errors import UserError, first_line
from pipeline.exports.programs import example_modules, exported_program
from vdsm.decoder import ExpertTransposedConv
from vdsm.disentangler import Disentangler
from vdsm.model_folder import ModelFacts

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
    largest = 0.0
    modules = zip(ONNX_FILES, NAMES, example_modules(convertible, facts), example_modules(model, facts), strict=True)
    for name, (inputs, outputs), (module, example), (original, _) in modules:
        try:
            with _quiet():
                program = torch.onnx.export(
                    exported_program(module, example), example, dynamo=True, input_names=inputs, output_names=outputs,
                    verbose=False,
                )  # fmt: skip
                assert program is not None, "torch.onnx.export returns a program if it is given no file"
                program.save(folder / name, external_data=False)
            difference = _difference(folder / name, original, example)
        except (ImportError, UserError):
            raise
        except Exception as error:  # many kinds, all of them about what ONNX and its runtime support
            reason = first_line(error)
            raise UserError(f"{name}: this model cannot be written as ONNX: {reason:.200}; omit --onnx") from error
        if not difference <= TOLERANCE:
            raise UserError(f"{name}: its numbers differ from the model's by {difference:.2g}; omit --onnx")
        largest = max(largest, difference)
    return largest


def _difference(path: Path, module: nn.Module, example: tuple[Tensor, ...]) -> float:
    """Return the largest difference over several numbers of clips, that of the export and others."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    largest = 0.0
    for count in BATCHES:
        inputs = [part.repeat(2, *[1] * (part.ndim - 1))[:count].contiguous() for part in example]
        with torch.no_grad():
            expected = module(*inputs)
        found = session.run(None, {name: part.numpy() for name, part in zip(names, inputs, strict=True)})
        pairs = zip(found, expected if isinstance(expected, tuple) else (expected,), strict=True)
        largest = max(largest, *(float(np.abs(one - two.numpy()).max()) for one, two in pairs))
    return largest


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter prints, logs and warns of from the output of the command."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)

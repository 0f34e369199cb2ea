"""The packages beside this one, looked up by name when a caller names a run, a dataset, a video or a URL.

The model and its exported folders need none of them. On a machine that has this package alone, errors name what is
missing.
"""

import importlib
from types import ModuleType

READER = "pipeline.generation.reader"
"""Reads what this package does not: its functions raise ValueError with a message of one line."""


def reader(what: str) -> ModuleType:
    """Return the module that reads runs, datasets, videos and URLs.

    Raises:
        ValueError: it, or a library that it needs, is not installed; the message says what `what` needs.
    """
    try:
        return importlib.import_module(READER)
    except ModuleNotFoundError as error:
        missing = (error.name or READER).partition(".")[0]
        remedy = "vdsm-pipeline" if missing == READER.partition(".")[0] else missing
        raise ValueError(f"{what}: reading it needs {missing}, which is not installed; install {remedy}") from None

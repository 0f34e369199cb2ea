"""Named settings of the model."""

from collections.abc import Callable, Mapping
from typing import Any

from vdsm.config import ModelConfig


def paper(**changes: Any) -> ModelConfig:
    """The published shapes, which are the defaults: 133.2 M decoder parameters at 40 experts."""
    return ModelConfig(**changes)


PRESETS: Mapping[str, Callable[..., ModelConfig]] = {"paper": paper}
"""The presets by name; each takes settings that differ from it."""

"""Named settings of the model."""

from collections.abc import Callable, Mapping
from typing import Any

from vdsm.config import ModelConfig


def paper(**changes: Any) -> ModelConfig:
    """Return the published shapes, which are the defaults: 133.2 M decoder parameters at 40 experts."""
    return ModelConfig(**changes)


def improved(**changes: Any) -> ModelConfig:
    """Return the published sizes with seven settings changed; docs/model-options.md has the measurements.

    Raises:
        ValueError: `changes` do not fit, such as a number of experts that 8 groups do not divide.
    """
    settings: dict[str, Any] = {
        # Attributes of an identity are chosen independently of each other, not by one blend for all.
        "static_groups": 8,
        # Independent kernels cancel in the even blend at the start of training: 1/sqrt(K) per layer.
        "expert_init": "shared",
        # With 1/K and 1/D, choosing an expert or an action costs tens of nats.
        "static_prior_scale": 0.15,
        "dynamics_prior_scale": 1.0,
        # A quarter of the encoder's computation.
        "encoder_downsampling": "stride",
        # With torch's default initialisation, the signal of a frame almost vanishes in the encoder.
        "encoder_init": "he",
        "encoder_slope": 0.2,
    }
    return ModelConfig(**(settings | changes))


PRESETS: Mapping[str, Callable[..., ModelConfig]] = {"paper": paper, "improved": improved}
"""Presets by name; each takes the settings that should differ from it."""

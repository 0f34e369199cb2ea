"""Named settings of the model."""

from collections.abc import Callable, Mapping
from typing import Any

from vdsm.config import ModelConfig


def paper(**changes: Any) -> ModelConfig:
    """The published shapes, which are the defaults: 133.2 M decoder parameters at 40 experts."""
    return ModelConfig(**changes)


def improved(**changes: Any) -> ModelConfig:
    """The published sizes with seven settings changed; docs/model-options.md says which were measured, and on what.

    Raises ValueError where `changes` do not fit, such as experts that the 8 groups do not divide.
    """
    settings: dict[str, Any] = {
        # Attributes of an identity are chosen independently of each other, instead of one blend for all.
        "static_groups": 8,
        # Independent kernels cancel in the even blend with which training begins: 1/sqrt(K) per layer.
        "expert_init": "shared",
        # 1/K and 1/D make any choice of an expert, or of an action, cost tens of nats.
        "static_prior_scale": 0.15,
        "dynamics_prior_scale": 1.0,
        # A quarter of the encoder's work.
        "encoder_downsampling": "stride",
        # With torch's first weights a frame's signal all but vanishes in the encoder.
        "encoder_init": "he",
        "encoder_slope": 0.2,
    }
    return ModelConfig(**(settings | changes))


PRESETS: Mapping[str, Callable[..., ModelConfig]] = {"paper": paper, "improved": improved}
"""The presets by name; each takes settings that differ from it."""

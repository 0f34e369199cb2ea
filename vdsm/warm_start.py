"""Warm start: the weights of a trained model as the initial weights of another training."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vdsm.config import ModelConfig
from vdsm.disentangler import Disentangler

FREE = frozenset(
    {
        "static_prior_scale",
        "dynamics_prior_scale",
        "rnn_dropout",
        "encoder_init",
        "dynamics_init",
        "expert_init",
        "likelihood_scale",
    }
)
"""Settings that may differ: the weights have the same shapes, and mean the same, whatever their values are."""

OF_STAGE_2 = frozenset({"dynamics_decoder", "dynamics_size", "rnn_width", "rnn_layers"})
"""Settings that decide the shape or the meaning of the weights of stage 2 alone."""

_STAGE_1 = "sequence_model.frame_model."
_PIXEL_SCALE = _STAGE_1 + "likelihood.raw_scale"


class StartWeights(NamedTuple):
    """Initial weights, and what the training should be told of them."""

    weights: dict[str, Tensor]
    """Part of the `state_dict` of a Disentangler; parameters that it lacks keep their random initial values."""
    notes: tuple[str, ...]
    """What was not loaded, and which settings differ."""


def start_weights(model: Disentangler, config: ModelConfig, *, sequence_stage: bool) -> StartWeights:
    """Return the weights of `model` that a model with the settings `config` can start from.

    Args:
        model: a trained model.
        config: settings of the model to be trained.
        sequence_stage: whether the sequence stage of `model` is trained; its weights are left out otherwise.

    Raises:
        ValueError: a setting differs that decides the shape or the meaning of the weights, or a weight is not finite.
    """
    differing = [field.name for field in fields(ModelConfig) if _differs(field.name, model.config, config)]
    may_differ = {name for name in differing if _may_differ(name, model.config, config)}
    may_differ |= set() if sequence_stage else OF_STAGE_2  # whose weights are left out
    if refused := [name for name in differing if name not in may_differ]:
        named = (f"model.{name} is {getattr(config, name)} and there {getattr(model.config, name)}" for name in refused)
        raise ValueError(f"{'; '.join(named)}; use the same settings, or start from another model")
    weights = {name: weight for name, weight in model.state_dict().items() if sequence_stage or _is_stage_1(name)}
    for name, weight in weights.items():
        if not torch.isfinite(weight).all():
            raise ValueError(f"its weight {name} has values that are not finite; start from another checkpoint")
    notes = [] if sequence_stage else ["its sequence stage is untrained, so that of this training starts at random"]
    if differing:
        values = (f"{name} {getattr(model.config, name)} -> {getattr(config, name)}" for name in differing)
        notes.append(f"these settings of the model differ, which is allowed: {', '.join(values)}")
    notes += _fit_pixel_scale(weights, config)
    return StartWeights(weights, tuple(notes))


def load_start_weights(model: Disentangler, weights: Mapping[str, Tensor]) -> None:
    """Load initial weights of `start_weights` into an untrained model.

    Raises:
        ValueError: the model has no parameter of such a name or shape.
    """
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:  # a shape; the first line of the message names the class only
        raise ValueError(f"the initial weights do not fit the model: {str(error).splitlines()[-1].strip()}") from None
    absent = [name for name in missing if _is_stage_1(name) and name != _PIXEL_SCALE]
    if unexpected or absent:
        raise ValueError(f"the initial weights do not fit the model: {', '.join([*unexpected, *absent])}")


def _differs(name: str, there: ModelConfig, here: ModelConfig) -> bool:
    old, new = getattr(there, name), getattr(here, name)
    return bool((tuple(old) if isinstance(old, list) else old) != new)  # checkpoints may hold lists for tuples


def _may_differ(name: str, there: ModelConfig, here: ModelConfig) -> bool:
    if name == "likelihood":  # the location of `laplace` is another function of the decoder's output
        return "laplace" not in (there.likelihood, here.likelihood)
    if name == "encoder_weights":  # another file, but the same kind of norm
        return None not in (there.encoder_weights, here.encoder_weights)
    return name in FREE


def _is_stage_1(name: str) -> bool:
    return name.startswith(_STAGE_1)


def _fit_pixel_scale(weights: dict[str, Any], config: ModelConfig) -> list[str]:
    """Drop a learned scale of the pixels that the new model lacks, and return a note if one was added or dropped."""
    is_learned = config.likelihood != "bernoulli" and config.likelihood_scale is None
    if is_learned and _PIXEL_SCALE not in weights:
        return ["the scale of the likelihood is learned from its usual initial value"]
    if not is_learned and weights.pop(_PIXEL_SCALE, None) is not None:
        return ["the learned scale of its likelihood is not used"]
    return []

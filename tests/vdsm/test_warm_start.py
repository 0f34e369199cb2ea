"""Which weights another training can start from, and what keeps its random initial values."""

import math
import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from vdsm.config import ModelConfig
from vdsm.disentangler import Disentangler
from vdsm.warm_start import load_start_weights, start_weights

TINY = ModelConfig(
    num_experts=4, pose_size=3, dynamics_size=5, frame_size=32, encoder_channels=(4, 4, 8), encoder_hidden=16,
    static_hidden=8, decoder_channels=(16, 8, 4), rnn_width=8, rnn_layers=2,
)  # fmt: skip
STAGE_1 = "sequence_model.frame_model."
PIXEL_SCALE = "sequence_model.frame_model.likelihood.raw_scale"


def model(seed: int, **changes: Any) -> Disentangler:
    torch.manual_seed(seed)
    return Disentangler(replace(TINY, **changes))


def started(from_model: Disentangler, to_model: Disentangler, *, sequence_stage: bool = True) -> set[str]:
    """Load the weights of one model into another, and return the names of those that are now equal."""
    before = {name: weight.clone() for name, weight in to_model.state_dict().items()}
    load_start_weights(to_model, start_weights(from_model, to_model.config, sequence_stage=sequence_stage).weights)
    there, here = from_model.state_dict(), to_model.state_dict()
    kept = {name for name in here if torch.equal(here[name], before[name])}
    equal = {name for name in here if name in there and torch.equal(here[name], there[name])}
    assert kept | equal == here.keys()
    return equal


def test_both_stages_start_with_the_weights_of_the_model() -> None:
    one, other = model(1), model(2)
    assert started(one, other) == one.state_dict().keys()


def test_an_untrained_sequence_stage_is_left_out() -> None:
    one, other = model(1), model(2)
    initial = other.sequence_model.transition.step.weight.detach().clone()
    with torch.no_grad():
        one.sequence_model.transition.step.weight.add_(1)
    started(one, other, sequence_stage=False)
    assert torch.equal(other.sequence_model.transition.step.weight, initial)
    found = start_weights(one, other.config, sequence_stage=False)
    assert found.weights.keys() == {name for name in one.state_dict() if name.startswith(STAGE_1)}
    assert found.notes == ("its sequence stage is untrained, so that of this training starts at random",)


@pytest.mark.parametrize(
    "changes",
    [
        {"rnn_dropout": 0.1}, {"static_prior_scale": 0.15}, {"dynamics_prior_scale": 2.0}, {"encoder_init": "he"},
        {"expert_init": "shared"}, {"likelihood": "gaussian", "likelihood_scale": 0.1},
    ],
)  # fmt: skip
def test_settings_that_decide_neither_shape_nor_meaning_may_differ_and_are_named(changes: dict[str, Any]) -> None:
    one, other = model(1), model(2, **changes)
    assert started(one, other) == one.state_dict().keys()
    (note,) = start_weights(one, other.config, sequence_stage=True).notes
    assert note.startswith("these settings of the model differ, which is allowed: ")
    assert all(f"{name} {getattr(TINY, name)} -> {value}" in note for name, value in changes.items())


@pytest.mark.parametrize("changes", [{"dynamics_decoder": "phase"}, {"dynamics_size": 9}, {"rnn_width": 16}])
def test_settings_of_stage_2_may_differ_where_only_stage_1_is_taken(changes: dict[str, Any]) -> None:
    one, other = model(1), model(2, **changes)
    expected = {name for name in one.state_dict() if name.startswith(STAGE_1)}
    assert started(one, other, sequence_stage=False) >= expected
    assert any(
        name in note for note in start_weights(one, other.config, sequence_stage=False).notes for name in changes
    )


def test_a_learned_scale_of_the_pixels_is_learned_anew_or_dropped() -> None:
    learned, fixed = {"likelihood": "gaussian"}, {"likelihood": "gaussian", "likelihood_scale": 0.2}
    one, other = model(1), model(2, **learned)
    assert started(one, other) == one.state_dict().keys() == other.state_dict().keys() - {PIXEL_SCALE}
    assert "learned from its usual initial value" in start_weights(one, other.config, sequence_stage=True).notes[-1]
    one, other = model(1, **learned), model(2, **fixed)
    assert started(one, other) == one.state_dict().keys() - {PIXEL_SCALE} == other.state_dict().keys()
    assert "is not used" in start_weights(one, other.config, sequence_stage=True).notes[-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_experts": 8}, "model.num_experts is 8 and there 4"),
        ({"pose_size": 9}, "model.pose_size is 9 and there 3"),
        (
            {"frame_size": 64, "encoder_channels": (4, 4, 8, 8), "decoder_channels": (8, 8, 4, 4)},
            "model.frame_size is 64 and there 32; model.encoder_channels is (4, 4, 8, 8) and there ",
        ),
        ({"static_groups": 2}, "model.static_groups is 2 and there 1"),
        ({"dynamics_decoder": "phase"}, "model.dynamics_decoder is phase and there lstm"),
        ({"rnn_width": 16}, f"model.rnn_width is 16 and there {TINY.rnn_width}"),
        ({"encoder_slope": 0.2}, "model.encoder_slope is 0.2 and there 0.01"),
        ({"encoder_downsampling": "stride"}, "model.encoder_downsampling is stride and there blur"),
        ({"likelihood": "laplace"}, "model.likelihood is laplace and there bernoulli"),
    ],
)
def test_settings_that_decide_shape_or_meaning_are_named_with_both_values(
    changes: dict[str, Any], message: str
) -> None:
    one = model(1)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        start_weights(one, replace(TINY, **changes), sequence_stage=True)
    assert str(error.value).endswith("; use the same settings, or start from another model")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_weight_that_is_not_finite_is_named(value: float) -> None:
    one = model(1)
    with torch.no_grad():
        one.frame_model.static_loc.bias[1] = value
    with pytest.raises(ValueError, match=rf"weight {STAGE_1}static_loc\.bias has values that are not finite"):
        start_weights(one, TINY, sequence_stage=True)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (lambda weights: weights.pop(STAGE_1 + "static_loc.bias"), "static_loc.bias"),
        (lambda weights: weights.update(other=torch.zeros(1)), "other"),
        (lambda weights: weights.update({STAGE_1 + "static_loc.bias": torch.zeros(9)}), "static_loc.bias"),
    ],
)
def test_weights_of_other_names_or_shapes_are_not_loaded(changed: Any, named: str) -> None:
    weights = dict(start_weights(model(1), TINY, sequence_stage=True).weights)
    changed(weights)
    with pytest.raises(ValueError, match=re.escape(named)) as error:
        load_start_weights(model(2), weights)
    assert "\n" not in str(error.value)

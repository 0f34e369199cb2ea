"""The state of a training: what a checkpoint holds, and checkpoints of earlier versions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.training.position import TrainPosition
from pipeline.training.state import FORMAT, BestValidation, Provenance, TrainState
from vdsm import checkpoint

RECIPE = {"training": {"rollback_rate": 0.1}}
STATE = TrainState(
    position=TrainPosition(2, 7),
    model_config={"num_experts": 4},
    weights={"a": torch.ones(2)},
    temperature=3.5,
    optimiser={"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]},
    ema={"a": torch.full((2,), 0.5)},
    uses_ema=True,
    loss_scale={"scale": 1024.0},
    lr_scale=0.01,
    rollbacks=2,
    best_validation={1: BestValidation(20, -0.5), 2: BestValidation(4, -0.25)},
    epoch=3,
    seed=11,
    provenance=Provenance(RECIPE, "ab" * 32),
)


def plain(value: Any) -> Any:
    """Return a state with lists in place of tensors, which compare."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def version_2(**changes: Any) -> dict[str, Any]:
    """Return a checkpoint as version 2 wrote it."""
    content = STATE.to_dict()
    del content["rollbacks"]
    content |= {"format": 2, "slowdown": content.pop("lr_scale"), "bests": content.pop("best_validation")}
    content |= {"average": content.pop("ema"), "used": "average"}
    return content | changes


def test_a_state_is_unchanged_by_a_checkpoint_file(tmp_path: Path) -> None:
    checkpoint.save(STATE.to_dict(), tmp_path / "state.pt")
    content = checkpoint.load(tmp_path / "state.pt")
    assert content["format"] == FORMAT
    assert plain(TrainState.from_dict(content).to_dict()) == plain(STATE.to_dict())


@pytest.mark.parametrize("fields", [{"ema": None, "uses_ema": False}, {"loss_scale": None}, {"uses_ema": False}])
def test_a_state_without_options_is_unchanged_by_a_checkpoint(fields: dict[str, Any]) -> None:
    state = replace(STATE, **fields)
    assert plain(TrainState.from_dict(state.to_dict()).to_dict()) == plain(state.to_dict())


def test_a_checkpoint_of_version_2_is_read_under_the_current_names() -> None:
    assert plain(TrainState.from_dict(version_2()).to_dict()) == plain(STATE.to_dict())


@pytest.mark.parametrize(
    ("lr_scale", "recipe", "rollbacks"),
    [(1.0, {}, 0), (0.5, {}, 1), (0.125, {}, 3), (0.1, RECIPE, 1), (0.001, RECIPE, 3)],
)
def test_the_number_of_rollbacks_of_version_2_follows_from_its_learning_rate(
    lr_scale: float, recipe: dict[str, Any], rollbacks: int
) -> None:
    assert TrainState.from_dict(version_2(slowdown=lr_scale, recipe=recipe)).rollbacks == rollbacks


def test_the_number_of_rollbacks_is_a_number_of_its_own() -> None:
    assert TrainState.from_dict(replace(STATE, lr_scale=0.3, rollbacks=5).to_dict()).rollbacks == 5


def test_a_checkpoint_of_a_later_version_is_refused() -> None:
    with pytest.raises(ValueError, match=f"has format {FORMAT + 1}, this version reads up to {FORMAT}; update"):
        TrainState.from_dict({**STATE.to_dict(), "format": FORMAT + 1})


def test_the_keys_that_a_checkpoint_lacks_are_named() -> None:
    content = STATE.to_dict()
    del content["model"], content["step"]
    with pytest.raises(ValueError, match="has no model and no step; use one of `vdsm train`"):
        TrainState.from_dict(content)

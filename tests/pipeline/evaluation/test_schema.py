"""The layout of metrics.json."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.evaluation.metrics import find_warnings
from pipeline.evaluation.schema import SCHEMA_VERSION, Metrics
from vdsm.evaluation.scores import Score

FIGURE = {"value": 0.9, "n": 10, "chance": 0.1, "low": 0.8, "high": 1.0}
SMALLEST: dict[str, Any] = {
    "schema_version": 2,
    "swap_by": "dynamics code",
    "factors": {"action": "action", "static": ["hat"]},
    "vocabulary": {"action": ["walk", "jump"], "hat": ["on", "off"]},
    "figures": {"swap.action.accuracy": FIGURE},
    "controls": {"perfect": {"swap.action.accuracy": FIGURE}},
    "control_descriptions": {"perfect": "real clips"},
    "warnings": [],
    "confusion": {"action": [[5, 0], [0, 5]]},
    "expert_use": [],
    "wrong_swaps": 0,
    "provenance": {
        "data": "data", "data_sha256": "0", "test_clips": 10, "test_identities": 5, "pairs_sha256": "0",
        "clip_frames": 8, "judge": None, "seed": 0, "bootstrap": {}, "evaluation": {}, "threads": 2,
        "versions": {}, "time": {"finished": "2026-01-01T00:00:00+00:00", "seconds": 1.0},
    },
}  # fmt: skip


def test_every_name_that_is_promised_is_allowed_and_no_other() -> None:
    promised = ["judge.action.accuracy", "swap.action.accuracy", "swap.static.hat.accuracy", "swap.static.joint"]
    promised += ["leakage.action", "leakage.hat", "prior.static.action.accuracy", "prior.dynamics.static.joint"]
    promised += [f"probe.{code}.hat.{kind}" for code in ("static", "dynamics") for kind in ("linear", "mlp")]
    promised += ["reconstruction.mse", "reconstruction.psnr", "reconstruction.ssim", "consistency.action"]
    promised += ["frechet.judge.swap", "frechet.inception.swap", "cycle.static", "is", "h_y_given_x", "h_y"]
    promised += ["likeness.identity", "likeness.action", "likeness.leakage.identity", "likeness.real"]
    promised += ["moving.self_swap.psnr", "moving.poses.gain", "moving.first_frame.mse", "moving.share"]
    promised += ["moving.swap.gradient", "moving.pose_swap.ssim", "moving.swap.gain", "moving.first_frame.gradient"]
    promised += ["smoothness.change", "smoothness.acceleration"]
    Metrics.model_validate({**SMALLEST, "figures": dict.fromkeys(promised, FIGURE)})
    for wrong in (
        "likeness.hat",
        "moving.first_frame.gain",
        "smoothness",
        "swap.accuracy",
        "probe.static.hat",
        "reconstruction.mae",
        "his",
        "swap.leakage.hat",
    ):
        with pytest.raises(ValidationError, match="pattern"):
            Metrics.model_validate({**SMALLEST, "figures": {wrong: FIGURE}})


@pytest.mark.parametrize(
    "change", [{"value": float("nan")}, {"n": 0}, {"chance": "?"}, {"low": None}, {"unit": "percent"}]
)
def test_a_figure_is_five_finite_numbers(change: dict[str, Any]) -> None:
    Metrics.model_validate(SMALLEST)
    with pytest.raises(ValidationError):
        Metrics.model_validate({**SMALLEST, "figures": {"h_y": {**FIGURE, **change}}})


@pytest.mark.parametrize("name", ["schema_version", "figures", "controls", "provenance", "time", "data_sha256"])
def test_nothing_may_be_left_out(name: str) -> None:
    damaged = copy.deepcopy(SMALLEST)
    for tree in (damaged, damaged["provenance"]):
        tree.pop(name, None)
    with pytest.raises(ValidationError, match="Field required"):
        Metrics.model_validate(damaged)


def test_the_written_schema_is_that_of_the_program(root: Path) -> None:
    """After a change of the layout, increase the version and write docs/metrics.schema.json again."""
    written = json.loads((root / "docs" / "metrics.schema.json").read_text())
    assert written == Metrics.model_json_schema(), "write it again: json.dumps(Metrics.model_json_schema(), indent=1)"
    assert written["properties"]["schema_version"]["const"] == SCHEMA_VERSION


def test_a_model_worse_than_a_still_is_named() -> None:
    def found(swap_by: str, **gains: float) -> list[str]:
        scores = {f"moving.{name}.gain": Score(value, 10, 0.0, value, value) for name, value in gains.items()}
        warnings = find_warnings({"swap.action.accuracy": Score(1, 10, 0.1, 1, 1), **scores}, swap_by)
        return [text for text in warnings if "first frame" in text]

    assert found("dynamics code", self_swap=0.1, poses=-1) == []
    (warning,) = found("dynamics code", self_swap=-2.31, poses=4)
    assert "is 2.3 dB worse than its first frame repeated" in warning
    assert len(found("poses", poses=-2)) == 1


def test_a_code_that_holds_what_it_should_not_is_named() -> None:
    def score(value: float) -> Score:
        return Score(value, 100, 1 / 9, value - 0.01, value + 0.01)

    names = {"swap.action.accuracy": 1.0, "judge.action.accuracy": 1.0, "judge.hat.accuracy": 1.0}
    clean = {"probe.static.action.linear": 0.12, "probe.dynamics.hat.linear": 0.2, "probe.dynamics.action.linear": 1.0}
    clean |= {"probe.static.hat.linear": 1.0, "probe.dynamics.angle.linear": 0.9, "probe.static.action.mlp": 0.9}
    found = {name: score(value) for name, value in {**names, **clean}.items()}
    assert find_warnings(found, "dynamics code") == []
    found |= {"probe.static.action.linear": score(0.97), "probe.dynamics.hat.linear": score(0.5)}
    first, second = find_warnings(found, "dynamics code")
    assert "static code holds the action" in first
    assert "97.0%" in first
    assert "dynamics code holds the hat" in second

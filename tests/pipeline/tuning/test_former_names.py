"""Studies stored before settings were renamed: they resume under the same digests, run names and parameter names."""

import logging
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from cluster.cli import former_names
from cluster.errors import UserError
from pipeline.recipe import Recipe
from pipeline.tuning.identity import run_name, sweep_identity
from pipeline.tuning.parameter_names import current_params, former_path
from pipeline.tuning.searcher import StudySearcher
from pipeline.tuning.space import Space
from pipeline.tuning.study import open_study, promote, ranked_trials, requeue_interrupted, storage_of
from pipeline.tuning.sweep import Sweep, read_sweep

CONSISTENCY = "training.stage1.annealing.static_consistency"
FRAMES = "training.stage2.num_decoded_frames"
DISTILLATION = "training.stage2.annealing.pose_distillation"
FORMER_SPACE: dict[str, Any] = {
    "training.stage1.annealing.agreement": {"low": 0.1, "high": 1, "log": True},
    "training.stage2.decoded_frames": {"choices": [2, 4]},
    "training.stage2.annealing.matching": {"low": 0.5, "high": 2, "when": {"training.stage2.decoded_frames": 4}},
    "model.num_experts": {"choices": [24, 60]},
}
SWEEP: dict[str, Any] = {"trials": 5, "promoted": 1, "steps_fraction": 0.5}
RECIPE = Recipe.model_validate(
    {
        "seed": 3,
        "model": {"num_experts": 60, "static_groups": 12},
        "training": {
            "num_workers": 2,
            "stage1": {
                "pairing": "identity",
                "annealing": {"static_consistency": 0.3, "pose": {"knots": [[0, 4], [0.5, 3], [1, 2]]}},
            },
            "stage2": {
                "num_decoded_frames": 4,
                "annealing": {"dynamics_consistency": 1.0, "pose_distillation": 1.0},
            },
        },
    }
)
# Computed by the last version that had the former names, from the same recipe and sweep in former spelling.
STORED_IDENTITY = {"space": "c2d7cb5d4c65beda", "objective": "d0416133c9e4c7c6", "recipe": "2721339b2e644866"}
STORED_RUN_NAME = "trial-2721339b2e64"
STORED_DEFAULT_RUN_NAME = "trial-44136fa355b3"


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """Read the sweep from a file in former spelling."""
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(SWEEP | {"space": FORMER_SPACE}))
    return read_sweep(path)


def former_study(url: str, sweep: Sweep) -> optuna.Study:
    """Make a study as the earlier version left it: one complete trial and an interrupted one, under former names."""
    open_study(url, "s", sweep, RECIPE)
    # The seed draws 4 for both trials, so that the conditional setting is searched.
    sampler = optuna.samplers.RandomSampler(seed=4)
    study = optuna.load_study(study_name="s", storage=storage_of(url), sampler=sampler)
    for score in (0.5, None):
        trial = study.ask()
        trial.suggest_float("training.stage1.annealing.agreement", 0.1, 1, log=True)
        if trial.suggest_categorical("training.stage2.decoded_frames", (2, 4)) == 4:
            trial.suggest_float("training.stage2.annealing.matching", 0.5, 2)
        trial.suggest_categorical("model.num_experts", (24, 60))
        if score is not None:
            study.tell(trial, score)
    return study


def test_digests_and_run_names_are_those_stored_before_settings_were_renamed(sweep: Sweep) -> None:
    assert sweep_identity(sweep, RECIPE) == STORED_IDENTITY
    assert run_name(RECIPE) == STORED_RUN_NAME
    assert run_name(Recipe()) == STORED_DEFAULT_RUN_NAME


def test_a_sweep_in_former_spelling_is_read_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(former_names, "_warned_of", set())
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({"space": FORMER_SPACE}))
    with caplog.at_level(logging.WARNING):
        sweep = read_sweep(path)
    assert list(sweep.space) == ["model.num_experts", CONSISTENCY, DISTILLATION, FRAMES]
    assert sweep.space[DISTILLATION].when == {FRAMES: 4}
    (message,) = [record.getMessage() for record in caplog.records]
    assert f"training.stage1.annealing.agreement -> {CONSISTENCY}" in message
    assert f"training.stage2.decoded_frames -> {FRAMES}" in message


def test_one_setting_under_both_names_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(
        yaml.safe_dump({"space": {FRAMES: {"choices": [2]}, "training.stage2.decoded_frames": {"choices": [3]}}})
    )
    with pytest.raises(UserError, match=f"space has {FRAMES} twice"):
        read_sweep(path)


def test_a_study_keeps_the_former_names_of_its_parameters(tmp_path: Path, sweep: Sweep) -> None:
    url = str(tmp_path / "study.journal")
    interrupted = former_study(url, sweep).trials[1]
    space = Space(sweep.space, RECIPE)
    study = open_study(url, "s", sweep, RECIPE)
    assert requeue_interrupted(study) == 1
    searcher = StudySearcher(study, space, sweep.trials, sweep.steps_fraction, sweep.objectives)
    resumed, fresh = searcher.suggest("a"), searcher.suggest("b")
    assert isinstance(resumed, dict)
    assert isinstance(fresh, dict)
    assert resumed["values"] == current_params(interrupted)
    assert (
        space.recipe(resumed["values"]).training.stage1.annealing.static_consistency
        == interrupted.params["training.stage1.annealing.agreement"]
    )
    assert {name for trial in study.trials for name in trial.params} == FORMER_SPACE.keys()
    assert set(fresh["values"]) <= sweep.space.keys()


def test_a_new_second_round_uses_current_names(tmp_path: Path, sweep: Sweep) -> None:
    first = former_study(str(tmp_path / "study.journal"), sweep)
    second = open_study(str(tmp_path / "study.journal"), "s/second-round", sweep, RECIPE)
    for _ in range(2):
        promote(first, second, 1)
    (queued,) = second.get_trials()
    assert queued.system_attrs["fixed_params"] == current_params(ranked_trials(first)[0])
    assert queued.system_attrs["fixed_params"].keys() <= sweep.space.keys()


def test_a_new_study_uses_current_names(tmp_path: Path, sweep: Sweep) -> None:
    study = open_study(str(tmp_path / "study.journal"), "s", sweep, RECIPE)
    searcher = StudySearcher(study, Space(sweep.space, RECIPE), 2, 1.0, sweep.objectives)
    for name in ("a", "b"):
        searcher.suggest(name)
    assert {name for trial in study.trials for name in trial.params} <= sweep.space.keys()


def test_elements_of_a_renamed_setting_are_renamed_with_it() -> None:
    assert former_path(f"{CONSISTENCY}.knots.0.1") == "training.stage1.annealing.agreement.knots.0.1"
    assert former_path("training.stage1.annealing.static.end") == "training.stage1.annealing.static.end"

"""The searched space: what it accepts, what it suggests, and its one-line errors."""

from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from cluster.cli import recipe_file, settings
from cluster.errors import UserError
from pipeline.recipe import Recipe
from pipeline.tuning.space import Parameter, Space
from pipeline.tuning.sweep import Sweep, read_sweep

WEIGHT = "training.stage1.annealing.static.end"
KNOT = "training.stage1.annealing.pose.knots.1.1"
EXPERTS = "model.num_experts"


def shipped(root: Path, name: str) -> Recipe:
    tree = recipe_file.read_recipe(root / "configs" / f"{name}.yaml", Recipe)
    return settings.validated(Recipe, settings.merge(settings.defaults(Recipe), tree), lambda path: "")


@pytest.fixture
def recipe(root: Path) -> Recipe:
    """Return the recipe of the quickstart: 48 experts in 12 simplices."""
    return shipped(root, "quickstart")


def suggestions(space: Space, count: int) -> list[dict[str, Any]]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space.suggest(study.ask()) for _ in range(count)]


def test_values_are_in_range_and_end_up_at_their_paths_in_the_recipe(recipe: Recipe) -> None:
    searched = {WEIGHT: Parameter(low=0.02, high=1, log=True), KNOT: Parameter(low=0.1, high=4)}
    space = Space(searched | {EXPERTS: Parameter(choices=(24, 96))}, recipe)
    drawn = suggestions(space, 40)
    assert all(0.02 <= values[WEIGHT] <= 1 and 0.1 <= values[KNOT] <= 4 for values in drawn)
    # On a log scale, half of the values are below the geometric mean, 0.14.
    assert sum(values[WEIGHT] < 0.15 for values in drawn) > 12
    assert {values[EXPERTS] for values in drawn} == {24, 96}
    recipe_of_trial = space.recipe(drawn[0])
    assert recipe_of_trial.training.stage1.annealing.static.end == drawn[0][WEIGHT]
    assert recipe_of_trial.training.stage1.annealing.pose.knots[1] == (0.5, drawn[0][KNOT])
    assert recipe_of_trial.training.stage1.annealing.pose.knots[0] == recipe.training.stage1.annealing.pose.knots[0]
    assert recipe_of_trial.model.num_experts == drawn[0][EXPERTS]
    assert recipe_of_trial.training.stage2 == recipe.training.stage2


def test_a_shorter_trial_is_a_complete_run_with_its_schedules_as_fractions(recipe: Recipe) -> None:
    shorter = Space({WEIGHT: Parameter(low=0.1, high=1)}, recipe).recipe({}, steps_fraction=0.25)
    assert shorter.training.stage1.steps == recipe.training.stage1.steps // 4
    assert shorter.training.stage1.warmup_steps == round(recipe.training.stage1.warmup_steps / 4)
    assert shorter.training.stage2.steps == recipe.training.stage2.steps // 4
    assert shorter.training.stage1.annealing == recipe.training.stage1.annealing


def test_integers_stay_integers(recipe: Recipe) -> None:
    space = Space({"model.pose_size": Parameter(low=8, high=40, step=8)}, recipe)
    sizes = {values["model.pose_size"] for values in suggestions(space, 40)}
    assert sizes == {8, 16, 24, 32, 40}
    assert all(type(size) is int for size in sizes)


def test_a_conditional_setting_is_searched_only_where_its_condition_holds(recipe: Recipe) -> None:
    scale = "model.static_prior_scale"
    # Named before the setting that it depends on: the order in the file does not matter.
    space = Space(
        {scale: Parameter(low=0.05, high=0.5, when={EXPERTS: 96}), EXPERTS: Parameter(choices=(24, 96))}, recipe
    )
    drawn = suggestions(space, 30)
    assert {values[EXPERTS] for values in drawn} == {24, 96}
    assert all((scale in values) == (values[EXPERTS] == 96) for values in drawn)
    assert space.recipe({EXPERTS: 24}).model.static_prior_scale == recipe.model.static_prior_scale


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"model.num_expert": Parameter(choices=(1,))}, "model.num_expert; did you mean model.num_experts?"),
        ({"training.num_workers": Parameter(choices=(1, 2))}, "unknown path training.num_workers"),
        ({"seed": Parameter(low=0, high=3)}, "unknown path seed"),
        ({"training.stage1.steps": Parameter(low=1, high=9)}, "trials of different length are not comparable"),
        ({"training.stage1.annealing.pose.knots.7.1": Parameter(low=1, high=2)}, "knots.7.1 does not exist"),
        ({"training.stage1.annealing.pose.knots.1": Parameter(low=1, high=2)}, "extend the path to one number in it"),
        ({EXPERTS: Parameter(low=24, high=47.5)}, "model.num_experts is an integer"),
        ({EXPERTS: Parameter(choices=(24, 50))}, "model.num_experts 50 would be rejected: model: static_groups is 12"),
        ({"training.stage1.learning_rate": Parameter(low=-1, high=1)}, "learning_rate -1.0 would be rejected"),
        ({"model.expert_init": Parameter(choices=("shared", "alike"))}, "model.expert_init alike would be rejected"),
        ({WEIGHT: Parameter(low=0.1, high=1, when={EXPERTS: 24})}, f"{WEIGHT} depends on {EXPERTS}, which is not"),
        (
            {WEIGHT: Parameter(low=0.1, high=1, when={EXPERTS: 25}), EXPERTS: Parameter(choices=(24, 48))},
            "depends on model.num_experts being 25, which is not among its choices",
        ),
    ],
)  # fmt: skip
def test_an_invalid_space_is_reported_by_path_before_any_trial(
    recipe: Recipe, space: dict[str, Parameter], message: str
) -> None:
    with pytest.raises(UserError) as error:
        Space(space, recipe)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_choices_that_are_invalid_only_in_combination_are_found(recipe: Recipe) -> None:
    both = {EXPERTS: Parameter(choices=(24, 32)), "model.static_groups": Parameter(choices=(4, 12))}
    with pytest.raises(UserError, match=r"model.num_experts 32, model.static_groups 12 would be rejected"):
        Space(both, recipe)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("space: {}", "space must be a section of dotted paths"),
        ("trials: 3", "space must be a section of dotted paths"),
        (f"space: {{{WEIGHT}: 3}}", f"space.{WEIGHT} is 3; it must be a range"),
        (f"space: {{{WEIGHT}: {{low: 1}}}}", f"space.{WEIGHT}: it needs either low and high, or choices"),
        (f"space: {{{WEIGHT}: {{low: 2, high: 1}}}}", "the range from 2 to 1 is empty"),
        (f"space: {{{WEIGHT}: {{low: 0, high: 1, log: true}}}}", "low is 0; with log it must be above 0"),
        (f"space: {{{WEIGHT}: {{choices: []}}}}", "choices is empty"),
        (f"space: {{{WEIGHT}: {{low: a, high: 1}}}}", "low is a; it must be a valid number"),
        (f"trial: 3\nspace: {{{WEIGHT}: {{low: 1, high: 2}}}}", "unknown key trial; did you mean trials?"),
        (f"trials: 0\nspace: {{{WEIGHT}: {{low: 1, high: 2}}}}", "trials is 0; it must be greater than or equal to 1"),
    ],
)
def test_an_invalid_file_is_reported_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_sweep(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.slow
def test_the_shipped_sweeps_fit_their_recipes(root: Path) -> None:
    files = sorted((root / "configs" / "sweeps").glob("*.yaml"))
    assert {path.stem for path in files} == {"annealing", "experts", "learning", "figures"}
    for path in files:
        sweep = read_sweep(path)
        recipe = shipped(root, "figures-short" if path.stem == "figures" else "quickstart")
        for values in suggestions(Space(sweep.space, recipe), 5):
            assert values.keys() == sweep.space.keys()
        # A sweep sets only what differs from the defaults, as recipes do.
        given = yaml.safe_load(path.read_text())
        assert all(getattr(sweep, name) != Sweep.model_fields[name].default for name in given.keys() - {"space"})

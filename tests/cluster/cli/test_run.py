"""A command line and its recipe become one checked object, or one line that says what to put right."""

import dataclasses
import logging
from pathlib import Path

import pytest
import yaml

from cluster.cli import settings
from cluster.cli.run import UserError, parse, run
from cluster.cli.settings import OTHER_SECTIONS, Controls
from pipeline.recipe import Recipe
from preprocessing.recipe import DataRecipe
from vdsm.config import STAGE_2_ANNEALING, ModelConfig


class TrainLike(Recipe, Controls):
    """Train a little."""

    data: str
    """Dataset: a folder or s3://bucket/prefix."""
    out: Path = Path("runs")
    """Folder for runs."""


class ShardLike(DataRecipe, Controls):
    """Shard a little."""

    out: str
    """Folder for shards."""


def read(*words: str) -> TrainLike:
    return parse(TrainLike, ["--data", "here", *words], prog="vdsm train")


def recipe(folder: Path, text: str) -> str:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return str(path)


def complaint(capsys: pytest.CaptureFixture[str], command: type[TrainLike | ShardLike], *words: str) -> str:
    """The one line of stderr with which a command line is refused."""
    with pytest.raises(SystemExit) as stopped:
        run(lambda rest: print(parse(command, rest, prog="vdsm x")), words)
    said = capsys.readouterr()
    assert stopped.value.code == 2
    assert said.out == ""
    lines = said.err.splitlines()
    assert len(lines) == 1, said.err
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


# Values


def test_without_options_a_command_has_the_defaults_of_its_recipe() -> None:
    command = read()
    assert command.model == ModelConfig()
    assert command.training.stage2.annealing == STAGE_2_ANNEALING
    assert (command.data, command.out, command.config, command.dry_run) == ("here", Path("runs"), None, False)


def test_dotted_options_reach_every_kind_of_field() -> None:
    command = read(
        "--seed=7",
        "--model.num-experts",
        "24",
        "--model.decoder_channels",  # underscores are as good as hyphens
        *("64", "32", "16", "8"),
        *("--model.static-prior-scale", "0.5"),
        *("--training.stages", "1"),
        "--training.use-gpu",
        *("--training.stage1.annealing.static.end", "2"),
        *("--training.stage1.annealing.pose.knots", "0", "5", "0.5", "2", "1", "1e-1"),
        *("--training.max-failures", "-1"),
        *("--source.figures.test-fraction", "0.5"),
    )
    assert command.seed == 7
    assert (command.model.num_experts, command.model.decoder_channels) == (24, (64, 32, 16, 8))
    assert command.model.static_prior_scale == 0.5
    assert (command.training.stages, command.training.use_gpu, command.training.max_failures) == ("1", True, -1)
    ramp = read().training.stage1.annealing.static
    assert command.training.stage1.annealing.static == dataclasses.replace(ramp, end=2.0) != ramp
    assert command.training.stage1.annealing.pose.knots == ((0, 5), (0.5, 2), (1, 0.1))
    assert command.source.figures.test_fraction == 0.5


def test_options_replace_the_recipe_which_replaces_the_defaults(tmp_path: Path) -> None:
    path = recipe(tmp_path, "seed: 3\nmodel: {num_experts: 8, pose_size: 5, static_prior_scale: 0.25}\n")
    command = read("--config", path, "--model.num-experts", "9", "--model.static-prior-scale", "none")
    assert (command.seed, command.model.num_experts, command.model.pose_size) == (3, 9, 5)
    assert command.model.static_prior_scale is None
    assert command.model.dynamics_size == ModelConfig().dynamics_size


def test_a_recipe_that_sets_a_part_of_a_section_keeps_the_rest_of_it(tmp_path: Path) -> None:
    command = read("--config", recipe(tmp_path, "training: {stage2: {steps: 5, annealing: {static: {end: 3}}}}"))
    assert command.training.stage2.steps == 5
    assert command.training.stage2.annealing.static.end == 3
    # not the annealing of stage 1, which is the default of the class
    assert command.training.stage2.annealing.pose == STAGE_2_ANNEALING.pose


def test_flags_can_be_turned_off_against_the_recipe(tmp_path: Path) -> None:
    path = recipe(tmp_path, "training: {use_gpu: true}")
    switched = [read("--config", path, *words).training.use_gpu for words in ([], ["--training.no-use-gpu"])]
    assert switched == [True, False]


@pytest.mark.parametrize(
    ("text", "value"),
    [("{learning_rate: 1e-4}", 1e-4), ("{learning_rate: 2}", 2.0), ("{learning_rate: .5}", 0.5)],
)
def test_numbers_may_be_written_as_people_write_them(tmp_path: Path, text: str, value: float) -> None:
    command = read("--config", recipe(tmp_path, f"training: {{stages: 1, stage1: {text}}}"))
    assert command.training.stage1.learning_rate == value
    assert command.training.stages == "1"


def test_an_empty_recipe_changes_nothing(tmp_path: Path) -> None:
    assert read("--config", recipe(tmp_path, "# nothing\n")).model == ModelConfig()


# Recipes of several commands


def test_a_command_ignores_the_sections_that_only_other_commands_read(tmp_path: Path) -> None:
    path = recipe(tmp_path, "seed: 4\nmodel: {num_experts: 8}\ntraining: {stages: 1}\ntune: {trials: 3}\n")
    assert parse(ShardLike, ["--config", path, "--out", "x"], prog="vdsm shard").seed == 4


def test_the_sections_of_other_commands_are_those_of_the_recipe() -> None:
    assert set(Recipe.model_fields) == OTHER_SECTIONS - {"tune"}  # a recipe for a sweep may hold its settings too


def test_a_typo_in_the_name_of_another_commands_section_is_still_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe(tmp_path, "trainig: {stages: 1}\n")
    assert complaint(capsys, ShardLike, "--config", path) == f"{path}: unknown key trainig; did you mean training?"


# Printing


def test_a_printed_recipe_is_read_back_as_the_same_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model.num-experts", "3", "--training.stage2.annealing.pose.floor", "0.125", "--source.path", "a: b"]
    with pytest.raises(SystemExit) as stopped:  # and --data need not be given for that
        parse(TrainLike, [*words, "--print-config"], prog="vdsm train")
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert set(yaml.safe_load(printed)) == set(Recipe.model_fields)
    assert read("--config", recipe(tmp_path, printed)).model_dump(exclude={"config"}) == read(*words).model_dump(
        exclude={"config"}
    )


def test_print_config_refuses_what_the_command_would_refuse(capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(capsys, TrainLike, "--print-config", "--model.num-experts", "0")
    assert said.startswith("model.num_experts is 0; it must be at least 1")


def test_help_lists_every_setting_with_its_description_and_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    path = recipe(tmp_path, "model: {num_experts: 17}")
    with pytest.raises(SystemExit) as stopped:
        parse(TrainLike, ["--config", path, "--help"], prog="vdsm train")
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.translate({ord(bar): " " for bar in "│|"}).split())
    for name in settings.paths(TrainLike):
        assert settings.option(name) in text
    assert "Train a little." in text
    assert "--data STR Dataset: a folder or s3://bucket/prefix. (required)" in text
    pose_size = settings.descriptions(ModelConfig)["pose_size"]
    assert f"--model.pose-size INT {pose_size} (default: {ModelConfig().pose_size})" in text
    assert f"{settings.descriptions(ModelConfig)['num_experts']} (default: 17)" in text
    assert "--training.stages {both,1,2}" in text


@pytest.mark.parametrize("command", [TrainLike, ShardLike])
def test_every_setting_has_a_description(command: type) -> None:
    def undescribed(cls: type, prefix: str = "") -> list[str]:
        found = []
        for name, setting in settings.settings_of(cls).items():
            if setting.section is not None:
                found += undescribed(setting.section, f"{prefix}{name}.")
            elif not settings.descriptions(cls).get(name):
                found.append(prefix + name)
        return found

    assert undescribed(command) == []


# Mistakes


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out"], "--out takes one value, got none"),
        (["--out", "a", "b"], "--out takes one value, got 2: a b"),
        (["--dta", "a"], "unknown option --dta; did you mean --data?"),
        (["--model.num-exprts", "3"], "unknown option --model.num-exprts; did you mean --model.num-experts?"),
        (["--num-experts=3"], "unknown option --num-experts; did you mean --model.num-experts?"),
        (["stray"], "unexpected argument 'stray'; options look like --seed 1 or --model.num-experts 24"),
        (
            ["--model.num-experts", "-3"],
            "model.num_experts is -3; it must be at least 1 (option --model.num-experts)",
        ),
        (
            ["--model.num-experts", "many"],
            "model.num_experts is many; it must be a valid integer (option --model.num-experts)",
        ),
        (
            ["--model.num-experts", "2.5"],
            "model.num_experts is 2.5; it must be a valid integer (option --model.num-experts)",
        ),
        (["--seed", "-1"], "seed is -1; it must be greater than or equal to 0 (option --seed)"),
        (
            ["--source.name", "lcp"],
            "source.name is lcp; it must be 'figures', 'videos', 'frames', 'arrays', 'lpc', 'moving_mnist' or "
            "'pendulum' (option --source.name)",
        ),
        (
            ["--training.stage1.batch-clips", "7"],
            "training.stage1.batch_clips is 7, which 2 workers cannot share evenly; make it a multiple of num_workers "
            "(option --training.stage1.batch-clips)",
        ),
        (
            ["--training.stage1.annealing.static.end", "0"],
            "training.stage1.annealing.static.start is 0.1 and end 0.0; both must be above 0 "
            "(option --training.stage1.annealing.static)",
        ),
        (
            ["--training.stage1.annealing.pose.knots", "0", "1", "1"],
            "--training.stage1.annealing.pose.knots takes groups of 2 values, got 3: 0 1 1",
        ),
        (["--config", "absent.yaml"], "cannot read the recipe absent.yaml: No such file or directory; "
         "give an existing YAML file to --config"),
        (["--config"], "--config needs a value"),
    ],
)  # fmt: skip
def test_a_mistake_on_the_command_line_gets_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert complaint(capsys, TrainLike, *words, "--data=a") == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modle: {num_experts: 3}", "PATH: unknown key modle; did you mean model?"),
        ("model: {num_exprts: 3}", "PATH: unknown key model.num_exprts; did you mean num_experts?"),
        ("training: {stage1: {stesp: 3}}", "PATH: unknown key training.stage1.stesp; did you mean steps?"),
        ("model: {num_experts: -3}", "model.num_experts is -3; it must be at least 1 (in PATH)"),
        ("model: {num_experts: many}", "model.num_experts is many; it must be a valid integer (in PATH)"),
        ("model: {num_experts: yes}", "PATH: model.num_experts is true; it must not be true or false"),
        ("model: {num_experts: [1]}", "model.num_experts is [1]; it must be a valid integer (in PATH)"),
        ("model: {encoder_channels: 8}", "model.encoder_channels is 8; it must be a valid tuple (in PATH)"),
        ("source: {figures: {identities: 1}}",
         "source.figures.identities is 1; it must be greater than or equal to 2 (in PATH)"),
        ("model: 3", "PATH: model is 3; it must be a section with keys such as num_experts"),
        ("- model", "PATH holds ['model'], not a recipe; it must be a mapping such as `seed: 0`"),
        ("model: [1, 2", "PATH, line 1 is not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("seed: 1\nseed: 2", "PATH, line 2 is not valid YAML: key seed appears twice"),
        ("? [1, 2]\n: 3", "PATH, line 1 is not valid YAML: found unhashable key"),
        ("seed: !!python/object/apply:os.getpid []",
         "PATH, line 1 is not valid YAML: could not determine a constructor for the tag "
         "'tag:yaml.org,2002:python/object/apply:os.getpid'"),
        ("dry_run: true", "PATH: dry_run is an option, not a setting; remove it from the recipe"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_recipe_gets_one_line_that_names_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    path = recipe(tmp_path, text)
    assert complaint(capsys, TrainLike, "--data", "a", "--config", path) == said.replace("PATH", path)


def test_what_is_required_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert complaint(capsys, TrainLike, "--seed", "1") == "data has no value; give it with --data"


def test_several_mistakes_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(capsys, TrainLike, "--data", "a", "--seed", "-1", "--model.num-experts", "0")
    assert said.endswith("(option --seed); 1 more error")


# Running


def test_a_user_error_of_several_lines_is_folded_into_one(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(words: list[str]) -> None:
        raise UserError("one\n  two")

    with pytest.raises(SystemExit) as stopped:
        run(fail, [])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: one two\n"


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    def fail(words: list[str]) -> None:
        raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        run(fail, [])


def test_an_interruption_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(words: list[str]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stopped:
        run(interrupted, [])
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "interrupted; rerun the same command to resume\n"


def test_logging_is_set_up_once() -> None:
    before = list(logging.getLogger().handlers)
    run(lambda words: None, [])
    run(lambda words: None, [])
    assert len(logging.getLogger().handlers) <= max(1, len(before))

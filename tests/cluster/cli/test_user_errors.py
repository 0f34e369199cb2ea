"""Invalid input on the command line or in a recipe is reported in one line with file, value and remedy."""

from pathlib import Path

import pytest

from tests.cluster.cli.commands import TrainLike, recipe, user_error


@pytest.mark.parametrize(
    ("args", "expected"),
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
            "source.name is lcp; it must be 'figures', 'videos', 'frames', 'arrays', 'hdf5', 'huggingface', "
            "'lpc', 'moving_mnist' or 'pendulum' (option --source.name)",
        ),
        (
            ["--training.stage1.batch-clips", "1"],
            "training.stage1.batch_clips is 1, but there are 2 workers; make it at least 2, or num_workers at most 1 "
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
        (
            ["--training.stage1.gradient-clip", "nan"],
            "training.stage1.gradient_clip is nan; it must be a number (option --training.stage1.gradient-clip)",
        ),
        (
            ["--training.stage1.steps", "9" * 400],
            f"training.stage1.steps is {'9' * 80}; it must be an integer of 64 bits (option --training.stage1.steps)",
        ),
        (["--seed", str(2**63)], f"seed is {2**63}; it must be an integer of 64 bits (option --seed)"),
        (["--shards.target-mb", "inf"],
         "shards.target_mb is inf; it must be a finite number (option --shards.target-mb)"),
        (["--config", "absent.yaml"], "cannot read the recipe absent.yaml: No such file or directory; "
         "give an existing YAML file, or a name of `vdsm recipes`"),
        (["--config"], "--config needs a value"),
    ],
)  # fmt: skip
def test_an_error_on_the_command_line_is_reported_in_one_line(
    capsys: pytest.CaptureFixture[str], args: list[str], expected: str
) -> None:
    assert user_error(capsys, TrainLike, *args, "--data=a") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("modle: {num_experts: 3}", "PATH: unknown key modle; did you mean model?"),
        ("model: {num_exprts: 3}", "PATH: unknown key model.num_exprts; did you mean num_experts?"),
        ("training: {stage1: {stesp: 3}}", "PATH: unknown key training.stage1.stesp; did you mean steps?"),
        ("model: {num_experts: -3}", "model.num_experts is -3; it must be at least 1 (in PATH)"),
        ("model: {num_experts: many}", "model.num_experts is many; it must be a valid integer (in PATH)"),
        ("model: {num_experts: yes}", "PATH: model.num_experts is true; it must not be true or false"),
        ("model: {num_experts: [1]}", "model.num_experts is [1]; it must be a valid integer (in PATH)"),
        ("model: {encoder_channels: 8}", "model.encoder_channels is 8; it must be a valid tuple (in PATH)"),
        ('source: {name: "\\ud800"}', "source.name is \\ud800; it must be a valid string (in PATH)"),
        ('training: {appearance: {descriptor: "\\ud800"}}',
         "training.appearance.descriptor is '\\ud800'; it must be valid text, in UTF-8 (in PATH)"),
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
def test_an_error_in_a_recipe_is_reported_in_one_line_with_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, expected: str
) -> None:
    path = recipe(tmp_path, text)
    assert user_error(capsys, TrainLike, "--data", "a", "--config", path) == expected.replace("PATH", path)


def test_a_missing_required_setting_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert user_error(capsys, TrainLike, "--seed", "1") == "data has no value; give it with --data"


def test_several_errors_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    output = user_error(capsys, TrainLike, "--data", "a", "--seed", "-1", "--model.num-experts", "0")
    assert output.endswith("(option --seed); 1 more error")

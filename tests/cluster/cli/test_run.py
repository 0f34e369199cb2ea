"""A command line and its recipe become one validated object, or one line that says what to fix."""

import dataclasses
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cluster.cli import settings
from cluster.cli.run import parse, run
from cluster.cli.settings import OTHER_SECTIONS
from cluster.errors import UserError
from pipeline.recipe import Recipe
from preprocessing.preparing.config import PrepareRecipe
from tests.cluster.cli.commands import ShardLike, TrainLike, read, recipe, user_error
from vdsm.config import STAGE_2_ANNEALING, ModelConfig

# Values


def test_without_options_a_command_has_the_defaults_of_its_recipe() -> None:
    command = read()
    assert command.model == ModelConfig()
    assert command.training.stage2.annealing == STAGE_2_ANNEALING
    assert (command.data, command.out, command.config, command.dry_run) == ("here", Path("runs"), (), False)


def test_dotted_options_reach_every_kind_of_field() -> None:
    command = read(
        "--seed=7",
        "--model.num-experts",
        "24",
        "--model.decoder_channels",  # underscores are accepted as well as hyphens
        *("64", "32", "16", "8"),
        *("--model.static-prior-scale", "0.5"),
        *("--training.stages", "1"),
        "--training.use-gpu",
        *("--training.stage1.annealing.static.end", "2"),
        *("--training.stage1.annealing.pose.knots", "0", "5", "0.5", "2", "1", "1e-1"),
        *("--training.max-failures", "-1"),
        *("--source.figures.test-fraction", "0.5"),
        *("--source.videos.channels", "1"),
    )
    assert command.seed == 7
    assert (command.model.num_experts, command.model.decoder_channels) == (24, (64, 32, 16, 8))
    assert command.model.static_prior_scale == 0.5
    assert (command.training.stages, command.training.use_gpu, command.training.max_failures) == ("1", True, -1)
    ramp = read().training.stage1.annealing.static
    assert command.training.stage1.annealing.static == dataclasses.replace(ramp, end=2.0) != ramp
    assert command.training.stage1.annealing.pose.knots == ((0, 5), (0.5, 2), (1, 0.1))
    assert command.source.figures.test_fraction == 0.5
    assert command.source.videos.channels == 1


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
    # Not the annealing of stage 1, which is the default of the class.
    assert command.training.stage2.annealing.pose == STAGE_2_ANNEALING.pose


def test_flags_can_be_turned_off_against_the_recipe(tmp_path: Path) -> None:
    path = recipe(tmp_path, "training: {use_gpu: true}")
    switched = [read("--config", path, *args).training.use_gpu for args in ([], ["--training.no-use-gpu"])]
    assert switched == [True, False]


@pytest.mark.parametrize(
    ("text", "value"),
    [("{learning_rate: 1e-4}", 1e-4), ("{learning_rate: 2}", 2.0), ("{learning_rate: .5}", 0.5)],
)
def test_numbers_can_be_written_in_any_usual_form(tmp_path: Path, text: str, value: float) -> None:
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
    sections = {*Recipe.model_fields, *PrepareRecipe.model_fields}
    assert sections == OTHER_SECTIONS - {"tune"}  # a recipe can include the settings of its sweep


def test_a_typo_in_the_name_of_another_commands_section_is_still_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe(tmp_path, "trainig: {stages: 1}\n")
    assert user_error(capsys, ShardLike, "--config", path) == f"{path}: unknown key trainig; did you mean training?"


# Printing


def test_a_printed_recipe_is_read_back_as_the_same_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--model.num-experts", "3", "--training.stage2.annealing.pose.floor", "0.125", "--source.path", "a: b"]
    with pytest.raises(SystemExit) as stopped:  # --data is not required for this
        parse(TrainLike, [*args, "--print-config"], prog="vdsm train")
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert set(yaml.safe_load(printed)) == set(Recipe.model_fields)
    assert read("--config", recipe(tmp_path, printed)).model_dump(exclude={"config"}) == read(*args).model_dump(
        exclude={"config"}
    )


def test_print_config_rejects_what_the_command_would_reject(capsys: pytest.CaptureFixture[str]) -> None:
    output = user_error(capsys, TrainLike, "--print-config", "--model.num-experts", "0")
    assert output.startswith("model.num_experts is 0; it must be at least 1")


def test_help_lists_every_setting_with_its_description_and_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    path = recipe(tmp_path, "model: {num_experts: 17}")
    with pytest.raises(SystemExit) as stopped:
        parse(TrainLike, ["--config", path, "--help-all"], prog="vdsm train")
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.translate({ord(bar): " " for bar in "│|"}).split())
    for name in settings.paths(TrainLike):
        assert settings.option(name) in text
    assert "Train a small model." in text
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


# Running


def test_a_user_error_of_several_lines_is_folded_into_one(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(args: list[str]) -> None:
        raise UserError("one\n  two")

    with pytest.raises(SystemExit) as stopped:
        run(fail, [])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: one two\n"


def test_a_bug_keeps_its_traceback() -> None:
    def fail(args: list[str]) -> None:
        raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        run(fail, [])


def test_an_interruption_says_how_to_resume(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(args: list[str]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stopped:
        run(interrupted, [])
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "interrupted; rerun the same command to resume\n"


def test_logging_is_set_up_once() -> None:
    before = list(logging.getLogger().handlers)
    run(lambda args: None, [])
    run(lambda args: None, [])
    assert len(logging.getLogger().handlers) <= max(1, len(before))


def test_a_log_line_that_quotes_a_foreign_name_cannot_command_the_terminal() -> None:
    code = (
        "import logging; from cluster.cli.run import set_up_logging; set_up_logging()\n"
        "try:\n    raise ValueError('inside')\n"
        "except ValueError: logging.getLogger('a').warning('%s is odd', '\\x1b[2Jname', exc_info=True)"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    first, *trace = done.stderr.splitlines()
    assert first.endswith(r"W \x1b[2Jname is odd")
    assert trace[-1] == "ValueError: inside"


def test_a_name_that_the_terminal_cannot_show_is_printed_with_escapes(tmp_path: Path) -> None:
    code = "from cluster.cli.run import run; run(lambda _: print('caf\\udce9 \\u263a'))"
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"caf\\udce9 \\u263a\n", b"")


CLOSED = """
import os, sys
from cluster.cli.run import run
for number in map(int, sys.argv[2]):
    os.close(number)
for name in ("stdin", "stdout", "stderr"):
    setattr(sys, name, None if str(("stdin", "stdout", "stderr").index(name)) in sys.argv[2] else getattr(sys, name))

def main(_):
    with open(sys.argv[1], "wb") as file:
        file.write(b"content;")
        file.flush()
        os.system("echo of a library; echo of a library >&2")
        assert os.system("test -e /proc/self/fd/0 -a -e /proc/self/fd/1 -a -e /proc/self/fd/2") == 0, "as for a child"
        sys.stdout.write("result"), sys.stderr.write("warning"), sys.stdin.read()

run(main)
"""


@pytest.mark.parametrize("closed", ["0", "1", "2", "12", "012"])
def test_a_command_whose_streams_are_closed_works_and_nothing_that_is_printed_gets_into_its_files(
    tmp_path: Path, closed: str
) -> None:
    args = [sys.executable, "-c", CLOSED, str(tmp_path / "file"), closed]
    done = subprocess.run(args, cwd=Path(__file__).parents[3], check=False, timeout=60, stdin=subprocess.DEVNULL)
    assert (done.returncode, (tmp_path / "file").read_bytes()) == (0, b"content;")


def test_neither_a_log_nor_the_traceback_of_a_bug_holds_the_credentials_of_an_address() -> None:
    code = (
        "import logging, threading\nfrom cluster.cli.run import run\nsecret = 'SEC' + 'RET'\n"
        "address = f'https://me:{secret}@h/x?X-Amz-Signature={secret}'\n"
        "def main(_):\n"
        "    logging.getLogger('httpx').info('HTTP Request: GET %s', address)\n"
        "    try:\n        raise ValueError(address)\n    except ValueError:\n        logging.exception('failed')\n"
        "    def fail():\n        raise IndexError(address)\n"
        "    thread = threading.Thread(target=fail, name='loader')\n    thread.start()\n    thread.join()\n"
        "    raise KeyError(address)\n"
        "run(main)"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("https://***@h/x?X-Amz-Signature=***") == 4
    assert "Exception in thread loader" in done.stderr
    assert "SECRET" not in done.stderr
    assert "KeyError" in done.stderr.splitlines()[-1]

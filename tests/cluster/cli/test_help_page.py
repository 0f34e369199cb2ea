"""The help of a command lists what the command uses, the main settings first; a shell completes all of it."""

import contextlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cluster.cli import settings
from cluster.cli.completion import SHELLS, command_class
from cluster.cli.help_page import hidden_paths
from pipeline.cli import COMMANDS, main
from pipeline.train import TrainCommand


def output(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    with contextlib.suppress(SystemExit):
        main(args)
    return capsys.readouterr().out


def listed(capsys: pytest.CaptureFixture[str], *args: str) -> list[str]:
    """Return the options that a help lists, in its order."""
    words = (line.strip("│ ").split(" ")[0].rstrip(",") for line in output(capsys, *args).splitlines())
    return [word for word in words if re.fullmatch("--[a-z].*", word)]


def test_the_help_of_train_lists_the_main_settings_and_begins_with_what_it_takes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = listed(capsys, "train", "--help")
    assert options[:3] == ["--data", "--out", "--name"]
    assert {"--config", "--seed", "--model.num-experts", "--training.stage1.steps"} <= set(options)
    assert not {"--training.stage1.annealing.pose.floor", "--source.name", "--evaluation.pairs"} & set(options)
    assert len(options) < 40


def test_all_of_the_help_lists_every_setting_that_the_command_uses(capsys: pytest.CaptureFixture[str]) -> None:
    options = listed(capsys, "train", "--help-all")
    unused = ("source.", "shards.", "evaluation.")
    assert set(options) == {
        settings.option(path) for path in settings.paths(TrainCommand) if not path.startswith(unused)
    }
    text = output(capsys, "train", "--help")
    assert f"--help-all lists all {len(options)}." in text
    assert "does not use source, shards, evaluation." in output(capsys, "train", "--help-all")


@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_help_leaves_out_exists_and_belongs_to_a_recipe(name: str) -> None:
    command = command_class(COMMANDS[name][0])
    every = settings.paths(command)
    for chosen in (*getattr(command, "MAIN", ()), *getattr(command, "UNUSED", ())):
        assert any(path == chosen or path.startswith(f"{chosen}.") for path in every), chosen
    hidden = hidden_paths(command, ["--help"])
    assert hidden_paths(command, ["--help-all"]) <= hidden < set(every)
    assert {path.partition(".")[0] for path in hidden} <= settings.OTHER_SECTIONS


def test_a_setting_that_no_help_lists_is_an_option_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    args = ("train", "--data", "x", "--source.figures.identities", "17", "--print-config")
    assert "identities: 17" in output(capsys, *args)


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    import vdsm

    assert output(capsys, "--version") == f"vdsm {vdsm.__version__}\n"
    assert f"version: {vdsm.__version__}\n" in (root / "CITATION.cff").read_text()


@pytest.mark.slow
def test_bash_completes_commands_options_and_values(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    script = tmp_path / "vdsm.bash"
    script.write_text(output(capsys, "completion", "bash"))

    def completed(*words: str) -> list[str]:
        call = (
            f'. "{script}"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _tyro_vdsm; printf "%s\\n" "${{COMPREPLY[@]}}"'
        )
        done = subprocess.run([bash, "-c", call, "-", *words], capture_output=True, text=True, check=True, timeout=60)
        return done.stdout.split()

    assert completed("vdsm", "eva") == ["evaluate"]
    assert completed("vdsm", "train", "--model.num") == ["--model.num-experts"]
    assert completed("vdsm", "train", "--training.precision", "b") == ["bf16"]
    assert completed("vdsm", "train", "--config", "sprites-s") == ["sprites-small"]
    assert completed("vdsm", "train", "--config", "sprites", "--source.path", "x", "--source.figures.id") == [
        "--source.figures.identities"
    ]


def test_completion_needs_the_name_of_a_shell(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["completion", "csh"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"error: `vdsm completion` takes the name of a shell: {', '.join(SHELLS)}\n"

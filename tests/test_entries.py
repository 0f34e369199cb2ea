"""Every command runs as a file, as a module and as a subcommand, from any folder and without PYTHONPATH."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import COMMANDS

pytestmark = pytest.mark.slow

HEAVY = ("torch", "ray", "pyro", "webdataset", "boto3", "pyarrow")
"""Libraries that take seconds to import and must not delay help or errors in the command line."""


def start(folder: Path, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, without PYTHONPATH."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    return subprocess.run(
        [sys.executable, *args], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def file_of(root: Path, command: str) -> Path:
    """Return the file of a command."""
    return (root / COMMANDS[command][0].replace(".", "/")).with_suffix(".py")


RUN_EACH = """
import contextlib, io, json, runpy, sys
found, libraries, ours = {}, list(sys.path), ("cluster", "pipeline", "preprocessing", "vdsm")
way, option, commands = json.loads(sys.argv[1])
for command, target in commands.items():
    for name in [name for name in sys.modules if name.split(".")[0] in ours]:
        del sys.modules[name]
    sys.argv[:] = [target, option]
    # As Python does before it runs a file or a module.
    sys.path[:] = [target.rpartition("/")[0] if way == "file" else libraries[0], *libraries[1:]]
    code, run = None, runpy.run_path if way == "file" else runpy.run_module
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            run(target, run_name="__main__")
        except SystemExit as stopped:
            code = stopped.code
    import pipeline, preprocessing
    found[command] = {"code": code, "out": out.getvalue(), "errors": errors.getvalue()}
    found[command]["paths"] = [sys.path[0], pipeline.__path__[0]]
print(json.dumps(found))
"""
"""Runs every command in one process, each with fresh modules of ours: a process for each would import the same
libraries again and again."""


def run_each(root: Path, folder: Path, way: str, option: str) -> dict[str, Any]:
    """Return exit code, output, errors and import paths of each command, run as a file or a module from a folder."""
    targets = {
        command: str(file_of(root, command)) if way == "file" else module for command, (module, *_) in COMMANDS.items()
    }
    done = start(folder, "-c", RUN_EACH, json.dumps([way, option, targets]))
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def as_files(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what the help of each entry file gives, started by path from another folder."""
    return run_each(root, tmp_path_factory.mktemp("elsewhere"), "file", "--help")


@pytest.fixture(scope="module")
def as_modules(root: Path) -> dict[str, Any]:
    """Return what the help of each command gives, run as a module."""
    return run_each(root, root, "module", "--help")


@pytest.fixture(scope="module")
def with_a_typo(root: Path) -> dict[str, Any]:
    """Return what each command answers to an option with a typo."""
    return run_each(root, root, "file", "--dry-rum")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_entry_file_runs_by_path_from_another_folder(as_files: dict[str, Any], command: str) -> None:
    found = as_files[command]
    assert (found["code"] or 0, found["errors"]) == (0, "")
    assert f"usage: vdsm {command}" in found["out"]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_entry_file_imports_its_own_repository(root: Path, as_files: dict[str, Any], command: str) -> None:
    assert as_files[command]["paths"] == [str(root), str(root / "pipeline")]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_runs_as_a_module(as_modules: dict[str, Any], command: str) -> None:
    found = as_modules[command]
    assert (found["code"] or 0, found["errors"]) == (0, "")
    assert f"usage: vdsm {command}" in found["out"]


@pytest.fixture(scope="module")
def helps(root: Path) -> dict[str, Any]:
    """Return, of each subcommand, the exit code and text of its help, and the heavy libraries that it imported."""
    code = f"""
import contextlib, io, json, sys
from pipeline.cli import COMMANDS, main
found = {{}}
for command in COMMANDS:
    code = None
    with contextlib.redirect_stdout(io.StringIO()) as text:
        try: main([command, "--help"])
        except SystemExit as stopped: code = stopped.code
    found[command] = [code, text.getvalue(), [name for name in {HEAVY} if name in sys.modules]]
print(json.dumps(found))
"""
    done = start(root, "-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_runs_as_a_subcommand_and_its_help_needs_no_heavy_library(
    helps: dict[str, Any], command: str
) -> None:
    code, text, imported = helps[command]
    assert code in (0, None)
    assert f"usage: vdsm {command}" in text
    assert imported == []


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_reports_a_typo_in_one_line_and_exits_with_2(with_a_typo: dict[str, Any], command: str) -> None:
    found = with_a_typo[command]
    assert (found["code"], found["out"]) == (2, "")
    assert found["errors"] == "error: unknown option --dry-rum; did you mean --dry-run?\n"


def test_the_list_of_commands_needs_no_library_at_all(root: Path) -> None:
    code = (
        "import sys; from pipeline.cli import main; main(['--help'])\n"
        f"print([name for name in {(*HEAVY, 'pydantic', 'tyro', 'yaml', 'numpy')} if name in sys.modules])"
    )
    done = start(root, "-c", code)
    assert done.stdout.splitlines()[-1] == "[]"
    assert all(f"  {name}  " in done.stdout or f"  {name} " in done.stdout for name in COMMANDS)


def test_an_unknown_command_is_reported_with_the_nearest_one(root: Path) -> None:
    done = start(root, "-m", "pipeline.cli", "trian")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: unknown command trian; did you mean train?\n"


def test_the_console_script_is_the_list_of_commands(tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "vdsm"
    if not script.exists():
        pytest.skip("the package is not installed in this environment; `make install` does that")
    done = subprocess.run([script, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert "quickstart" in done.stdout


@pytest.fixture
def modules_of_the_user(tmp_path: Path) -> Path:
    """Return a folder of modules with the names of our packages, which fail when they are imported."""
    folder = tmp_path / "project"
    (folder / "vdsm").mkdir(parents=True)
    for name in ("pipeline.py", "preprocessing.py", "cluster.py", "vdsm/__init__.py"):
        (folder / name).write_text("raise ImportError('a module of the user')")
    return folder


def test_each_entry_file_sets_the_import_path_alike(root: Path) -> None:
    def beginning(path: Path) -> str:
        return path.read_text().partition('if __name__ == "__main__":')[2].partition("\n\n\n")[0].partition("]\n")[0]

    starts = {beginning(file_of(root, command)) for command in COMMANDS}
    assert starts == {beginning(root / "pipeline" / "cluster_demo.py")}
    assert "sys.path" in starts.pop()


@pytest.mark.parametrize("command", ["shard", "train", "doctor"])
def test_a_command_ignores_modules_of_the_user_with_our_names(
    root: Path, modules_of_the_user: Path, command: str
) -> None:
    user, module = modules_of_the_user, COMMANDS[command][0]
    for safe_path in ("", "1"):
        done = start(user, str(file_of(root, command)), "--help", PYTHONPATH=str(user), PYTHONSAFEPATH=safe_path)
        assert (done.returncode, done.stderr) == (0, "")
    done = start(root, "-m", module, "--help", PYTHONPATH=str(user))
    assert (done.returncode, done.stderr) == (0, "")
    # With -m, Python itself looks for the first package of the name: only the others can be ours.
    (user / f"{module.partition('.')[0]}.py").unlink()
    done = start(user, "-m", module, "--help", PYTHONPATH=str(root))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_console_script_ignores_modules_of_the_user_with_our_names(root: Path, modules_of_the_user: Path) -> None:
    # As the script that pip writes. The editable install and an installed copy find the module by its own name.
    code = f"import sys; sys.path.append({str(root)!r}); from vdsm_command import main; main(['shard', '--help'])"
    done = start(modules_of_the_user, "-c", code, PYTHONPATH=str(modules_of_the_user))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_former_name_of_a_command_still_works(root: Path) -> None:
    done = start(root, "-m", "pipeline.cli", "recipe", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: vdsm recommend" in done.stdout

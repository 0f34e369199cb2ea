"""Every command runs as a file, as a module and as a subcommand, from any folder and without PYTHONPATH."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli import COMMANDS

pytestmark = pytest.mark.slow

HEAVY = ("torch", "ray", "pyro", "webdataset", "boto3", "pyarrow")
"""Libraries that take seconds to import and must not delay help or errors in the command line."""


def start(folder: Path, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, without PYTHONPATH."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    return subprocess.run(
        [sys.executable, *args], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def file_of(root: Path, command: str) -> Path:
    """Return the file of a command."""
    return (root / COMMANDS[command][0].replace(".", "/")).with_suffix(".py")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("folder", ["root", "elsewhere"])
def test_each_entry_file_runs_by_path(root: Path, tmp_path: Path, command: str, folder: str) -> None:
    # -S -E would also hide an installed copy, but all libraries with it.
    done = start(root if folder == "root" else tmp_path, str(file_of(root, command)), "--help")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert f"usage: vdsm {command}" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_each_entry_file_imports_its_own_repository(root: Path, tmp_path: Path, command: str) -> None:
    # Its folder must not be on the import path: `import config` would find a module of ours.
    code = (
        "import runpy, sys; path = sys.argv[1]; sys.argv = [path, '--help']; "
        "sys.path[0] = path.rpartition('/')[0]\n"
        "try: runpy.run_path(path, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "import pipeline, preprocessing; print(); print(sys.path[0]); print(pipeline.__path__[0]); "
    )
    done = start(tmp_path, "-c", code, str(file_of(root, command)))
    assert done.stdout.splitlines()[-2:] == [str(root), str(root / "pipeline")], done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_runs_as_a_module(root: Path, command: str) -> None:
    done = start(root, "-m", COMMANDS[command][0], "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"usage: vdsm {command}" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_runs_as_a_subcommand_and_its_help_needs_no_heavy_library(root: Path, command: str) -> None:
    code = (
        "import sys; from pipeline.cli import main\n"
        f"try: main([{command!r}, '--help'])\n"
        "except SystemExit as stopped: assert stopped.code == 0\n"
        f"print(); print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = start(root, "-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"usage: vdsm {command}" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_reports_a_typo_in_one_line_and_exits_with_2(tmp_path: Path, root: Path, command: str) -> None:
    done = start(tmp_path, str(file_of(root, command)), "--dry-rum")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: unknown option --dry-rum; did you mean --dry-run?\n"


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


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("safe_path", ["", "1"])
def test_an_entry_file_ignores_modules_of_the_user_with_our_names(
    root: Path, modules_of_the_user: Path, command: str, safe_path: str
) -> None:
    folder = modules_of_the_user
    variables = {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": safe_path}
    done = start(folder, str(file_of(root, command)), "--help", **variables)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_module_ignores_modules_of_the_user_with_our_names(
    root: Path, modules_of_the_user: Path, command: str
) -> None:
    module = COMMANDS[command][0]
    done = start(root, "-m", module, "--help", PYTHONPATH=str(modules_of_the_user))
    assert (done.returncode, done.stderr) == (0, "")
    # With -m, Python itself finds the first package of its name: only the others can be ours.
    first = modules_of_the_user / module.partition(".")[0]
    shutil.rmtree(first, ignore_errors=True)
    first.with_suffix(".py").unlink()
    done = start(modules_of_the_user, "-m", module, "--help", PYTHONPATH=str(root))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_console_script_ignores_modules_of_the_user_with_our_names(root: Path, modules_of_the_user: Path) -> None:
    # As the script that pip writes. The editable install and an installed copy find the module by its own name.
    code = f"import sys; sys.path.append({str(root)!r}); from vdsm_command import main; main(['shard', '--help'])"
    done = start(modules_of_the_user, "-c", code, PYTHONPATH=str(modules_of_the_user))
    assert (done.returncode, done.stderr) == (0, "")

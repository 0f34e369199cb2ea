"""Every command runs as a file, as a module and as a subcommand, from any folder and without PYTHONPATH."""

import os
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

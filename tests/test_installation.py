"""What an installation holds, wherever it is: every module, the recipes, the pages, and the mark that it is typed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("pipeline", "preprocessing", "cluster", "vdsm")


@pytest.fixture(scope="module")
def installed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the packages as a wheel does, into a folder."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("installed")
    base = folder.with_name("egg-info")
    base.mkdir()
    args = ["setup.py", "-q", "egg_info", "-e", str(base), "build_py", "-d", str(folder)]
    done = subprocess.run([sys.executable, *args], cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_it_holds_all_modules_and_data_of_the_packages(root: Path, installed: Path) -> None:
    kinds = {".py", ".j2", ".css", ".js", ".html", ".typed"}
    expected = {
        str(path.relative_to(root))
        for package in PACKAGES
        for path in (root / package).rglob("*")
        if path.suffix in kinds
    }
    expected |= {f"cluster/{path.relative_to(root)}" for path in (root / "configs").rglob("*.yaml")}
    expected |= {str(path.relative_to(root)) for path in (root / "vdsm" / "models").glob("*/*")}
    assert expected | {"vdsm_command.py"} == {
        str(path.relative_to(installed))
        for path in installed.rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"  # of a test that has imported them
    }
    assert {f"{package}/py.typed" for package in PACKAGES} <= expected


@pytest.mark.slow
def test_a_recipe_goes_by_its_name_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    # Without the site packages' own copy: an editable installation would be found first.
    code = (
        f"import sys; sys.path.insert(0, {str(installed)!r}); from vdsm_command import main\n"
        "main(['shard', '--config', 'configs/videos.yaml', '--out', 'x', '--print-config'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "name: videos" in done.stdout

"""The command of `make cluster-demo` in a fresh clone: four jobs succeed, a report exists, nothing is left running."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest


def marked(mark: str) -> list[str]:
    """Return the command lines of the processes with `mark` in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


@pytest.mark.long
def test_the_demonstration_runs_in_a_fresh_clone_and_leaves_no_process(root: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(root), str(clone)], check=True)
    mark = f"VDSM_TEST={uuid.uuid4()}"
    excluded = ("RAY_", "AWS_", "PYTHONPATH")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(excluded)}
    home = tmp_path / "home"
    home.mkdir()
    with (tmp_path / "output.txt").open("w") as output:
        done = subprocess.run(
            [sys.executable, "pipeline/cluster_demo.py", "--out", str(tmp_path / "demo")],
            cwd=clone,
            env={**inherited, "VDSM_TEST": mark.partition("=")[2], "HOME": str(home), "OMP_NUM_THREADS": "1"},
            stdout=output, stderr=subprocess.STDOUT, timeout=580, check=False,
        )  # fmt: skip
    printed = (tmp_path / "output.txt").read_text()
    assert done.returncode == 0, printed[-6000:]
    assert printed.count("succeeded") >= 4
    assert json.loads((tmp_path / "demo" / "metrics.json").read_text())
    assert "<html" in (tmp_path / "demo" / "report.html").read_text()[:500]
    assert marked(mark) == []
    assert list(home.rglob("auth_token")) == []
    status = subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True)
    assert status.stdout == ""

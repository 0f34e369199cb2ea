"""The command of `make cluster-demo` in an empty clone: four jobs succeed, there is a report, nothing is left."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest


def marked(mark: str) -> list[str]:
    """Living processes that have `mark` in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_the_demonstration_runs_in_an_empty_clone_and_leaves_nothing(root: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(root), str(clone)], check=True)
    mark = f"VDSM_TEST={uuid.uuid4()}"
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("RAY_", "AWS_", "PYTHONPATH"))}
    home = tmp_path / "home"
    home.mkdir()
    with (tmp_path / "output.txt").open("w") as output:
        done = subprocess.run(
            [sys.executable, "pipeline/cluster_demo.py", "--out", str(tmp_path / "demo")],
            cwd=clone, env={**kept, "VDSM_TEST": mark.partition("=")[2], "HOME": str(home), "OMP_NUM_THREADS": "1"},
            stdout=output, stderr=subprocess.STDOUT, timeout=580, check=False,
        )  # fmt: skip
    said = (tmp_path / "output.txt").read_text()
    assert done.returncode == 0, said[-6000:]
    assert said.count("succeeded") >= 4
    assert json.loads((tmp_path / "demo" / "metrics.json").read_text())
    assert "<html" in (tmp_path / "demo" / "report.html").read_text()[:500]
    assert marked(mark) == []
    assert list(home.rglob("auth_token")) == []
    status = subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True)
    assert status.stdout == ""

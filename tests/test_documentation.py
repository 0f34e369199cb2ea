"""The documentation as a website: every link and anchor leads somewhere, and every docstring is understood."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_it_builds_without_a_warning(root: Path, tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=root,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert (built.returncode, built.stderr) == (0, "")
    assert (tmp_path / "site" / "your-videos.html").exists()

"""What the tests of `vdsm evaluate` and `vdsm pairs` share: small settings, and a command that is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import evaluate

SMALL = ["--evaluation.judge-steps", "2", "--evaluation.judge-batch-clips", "4", "--evaluation.pairs", "20"]


def refused(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that a refused `vdsm evaluate` prints."""
    with pytest.raises(SystemExit) as ended:
        evaluate.main(args)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def write_samples(path: Path, frames: Any, rows: list[dict[str, str]]) -> None:
    """Write a file of samples as HOW.txt says."""
    donors = {name: np.array([row[name] for row in rows]) for name in ("dynamics_of", "static_of")}
    np.savez_compressed(path, frames=frames, **donors)

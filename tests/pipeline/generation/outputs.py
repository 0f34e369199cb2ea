"""What `vdsm generate` wrote, and the line with which it refuses."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import generate as generate_module


def frames_in(path: Path) -> NDArray[np.uint8]:
    """Return the clips in an .npz file: [N, T, H, W, C]."""
    with np.load(path) as arrays:
        frames: NDArray[np.uint8] = arrays["frames"]
        return frames


def refused(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line with which a command ends, after any warning."""
    with pytest.raises(SystemExit) as exit_info:
        generate_module.main(args)
    assert exit_info.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]

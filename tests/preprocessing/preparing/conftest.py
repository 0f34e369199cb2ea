"""A folder of drawn videos, prepared once."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.preprocessing.preparing.scenes import standing, waving, write


@pytest.fixture(scope="session")
def recordings(made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """Return a folder of recordings by person and action. Do not modify it.

    Of anna, a video, a copy of it in another codec and a mirrored one, and one with a cut; of bert, a video, one in
    which nothing moves, one that is too short, and a file that is no video.
    """
    return made_once("recordings", make_recordings)


def make_recordings(folder: Path) -> None:
    wave = waving(24, seed=1)
    write(folder / "anna" / "wave" / "one.mp4", wave)
    write(folder / "anna" / "wave" / "copy.mkv", wave, codec="mpeg4")
    write(folder / "anna" / "wave" / "mirrored.mp4", [np.ascontiguousarray(frame[:, ::-1]) for frame in wave])
    write(folder / "anna" / "jump" / "cut.mp4", [*waving(20, seed=2), *waving(24, seed=3)])
    write(folder / "bert" / "wave" / "other.mp4", waving(24, seed=4))
    write(folder / "bert" / "wave" / "still.mp4", standing(24, seed=5))
    write(folder / "bert" / "jump" / "short.mp4", waving(6, seed=6))
    (folder / "bert" / "jump" / "text.avi").write_text("no video\n" * 100)


@pytest.fixture(scope="session")
def prepared(recordings: Path, tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:
    """Return what `vdsm prepare` wrote for `recordings`. Do not modify it."""
    from preprocessing import prepare

    folder = tmp_path_factory.mktemp("prepared") / "out"
    prepare.main([*options(recordings), "--out", str(folder)])
    return folder


def options(recordings: Path | str) -> list[str]:
    """Return the options of the job on `recordings`."""
    labels = ["--source.videos.labels.folders", "person", "action"]
    return ["--source.path", str(recordings), "--prepare.detector", "motion", *labels]


@pytest.fixture
def copied(prepared: Path, tmp_path: Path) -> Path:
    """Return a copy of `prepared`, to modify."""
    return Path(shutil.copytree(prepared, tmp_path / "copied"))

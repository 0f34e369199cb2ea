"""Training runs that several tests share."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.train import main
from preprocessing import shard
from tests.e2e.shard_job import SETTINGS
from tests.e2e.training_runs import STAGES, descendants
from tests.preprocessing.video_files import make_videos

TrainArgs = Callable[..., list[str]]
MadeOnce = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="module", autouse=True)
def _no_training_outlives_its_tests() -> Iterator[None]:
    yield
    assert [name for name in descendants(os.getpid()).values() if "train.py" in name] == []


@pytest.fixture(scope="session")
def train_args(root: Path, small_figures: Path) -> TrainArgs:
    """Return a function that makes the arguments of `vdsm train` for a run."""

    def make_args(out: Path | str, name: str, data: Path | str = small_figures) -> list[str]:
        steps = [f"--training.stage{stage}.steps={count}" for stage, count in zip((1, 2), STAGES, strict=True)]
        recipe = ["--config", str(root / "tests" / "tiny.yaml"), *steps, "--training.audit"]
        return [*recipe, "--data", str(data), "--out", str(out), "--name", name]

    return make_args


@pytest.fixture(scope="session")
def undisturbed(local_ray: None, train_args: TrainArgs, made_once: MadeOnce) -> Path:
    """Return the folder of a run that nothing disturbed."""
    return made_once("runs", lambda out: main(train_args(out, "undisturbed"))) / "undisturbed"


@pytest.fixture(scope="session")
def videos(made_once: MadeOnce) -> Path:
    """Return a folder of videos, two of them bad."""
    return made_once("source", lambda folder: make_videos(folder / "videos", 14)) / "videos"


@pytest.fixture(scope="session")
def sharded_videos(local_ray: None, videos: Path, made_once: MadeOnce) -> Path:
    """Return the dataset of `videos` by a job that nothing disturbed."""
    args = ["--source.name", "videos", "--source.path", str(videos), *SETTINGS, "--shards.concurrency", "1"]
    return made_once("sharded", lambda folder: shard.main([*args, "--out", str(folder / "data")])) / "data"

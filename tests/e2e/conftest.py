"""Training runs that several tests share."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.train import main
from tests.e2e.training_runs import STAGES, descendants

TrainArgs = Callable[..., list[str]]


@pytest.fixture(scope="module", autouse=True)
def _no_training_outlives_its_tests() -> Iterator[None]:
    yield
    assert [name for name in descendants(os.getpid()).values() if "train.py" in name] == []


@pytest.fixture(scope="session")
def train_args(root: Path, figures_dataset: Path) -> TrainArgs:
    """Return a function that makes the arguments of `vdsm train` for a run."""

    def make_args(out: Path | str, name: str, data: Path | str = figures_dataset) -> list[str]:
        steps = [f"--training.stage{stage}.steps={count}" for stage, count in zip((1, 2), STAGES, strict=True)]
        recipe = ["--config", str(root / "tests" / "tiny.yaml"), *steps, "--training.audit"]
        return [*recipe, "--data", str(data), "--out", str(out), "--name", name]

    return make_args


@pytest.fixture(scope="session")
def undisturbed(local_ray: None, train_args: TrainArgs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("runs")
    main(train_args(out, "undisturbed"))
    return out / "undisturbed"

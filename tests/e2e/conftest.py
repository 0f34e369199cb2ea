"""Trainings that several tests look at."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.train import main
from tests.e2e.training_runs import STAGES

Words = Callable[..., list[str]]


@pytest.fixture(scope="session")
def words(root: Path, figures_dataset: Path) -> Words:
    """The words of `vdsm train` for a run."""

    def make(out: Path | str, name: str, data: Path | str = figures_dataset) -> list[str]:
        steps = [f"--training.stage{stage}.steps={count}" for stage, count in zip((1, 2), STAGES, strict=True)]
        recipe = ["--config", str(root / "tests" / "tiny.yaml"), *steps, "--training.audit"]
        return [*recipe, "--data", str(data), "--out", str(out), "--name", name]

    return make


@pytest.fixture(scope="session")
def undisturbed(local_ray: None, words: Words, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to which nothing happened."""
    out = tmp_path_factory.mktemp("runs")
    main(words(out, "undisturbed"))
    return out / "undisturbed"

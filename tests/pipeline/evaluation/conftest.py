"""An untrained run; and every evaluation must start as many phases of progress as it announces."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pytest

from cluster.cli.progress import ProgressDisplay
from pipeline.evaluation import execute
from pipeline.recipe import Recipe
from tests.pipeline.untrained_report import untrained_run
from vdsm.evaluation import judge


class CountingDisplay(ProgressDisplay):
    """A display that checks, at the end of a successful command, the number of phases that it showed."""

    def __init__(self, phases: int) -> None:
        super().__init__(phases)
        self.announced, self.started = phases, list[str]()

    def start(self, phase: str, total: float | None = None, *, unit: str = "", done: float = 0) -> None:
        self.started.append(phase)
        super().start(phase, total, unit=unit, done=done)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if kind is None:
            assert len(self.started) == self.announced, self.started


@pytest.fixture(scope="module", autouse=True)
def _counting_display(few_resamples: None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execute, "ProgressDisplay", CountingDisplay)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Recipe, small_figures: Path) -> Path:
    """Write a run with random weights, whose log ends in the middle of a line."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    untrained_run(folder, tiny_recipe, small_figures, seed=0)
    lines = [
        {"kind": "train", "stage": 1, "step": 4, "loss": 0.7, "kl_pose": 1e-4, "weight_pose": 30.0},
        {"kind": "train", "stage": 1, "step": 8, "loss": 0.6, "kl_pose": 1e-3, "weight_pose": 1.0},
        {"kind": "validation", "stage": 1, "step": 8, "elbo": -0.65},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"cut of')
    return folder


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "train_judge", lambda *arguments: pytest.fail("a judge was trained"))

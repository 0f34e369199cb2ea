"""The tiny training, as an object."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.recipe import Recipe
from pipeline.training.job import Job
from pipeline.training.position import TrainPosition
from pipeline.training.reporter import QuietReporter, StopDecision
from pipeline.training.state import TrainState
from preprocessing.dataset.reader import ClipDataset


@dataclass
class Recorder(QuietReporter):
    """A reporter that keeps everything in memory, and requests a stop after `stop_after` steps."""

    records: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    states: dict[tuple[int, int], TrainState] = field(default_factory=dict)
    audit: list[dict[str, Any]] = field(default_factory=list)
    stop_after: int | None = None
    preempted_after: int | None = None
    due_after: int | None = None
    steps: int = 0

    def log(self, record: dict[str, Any]) -> None:
        if record["kind"] == "event":
            self.events.append({name: value for name, value in record.items() if name != "kind"})
        else:
            self.records.append(record)

    def save(self, state: TrainState, *, last: bool, audit: Any = ()) -> None:
        self.states[state.position] = copy.deepcopy(state)
        self.audit += audit

    def restore(
        self, position: TrainPosition | None = None, *, before: TrainPosition | None = None
    ) -> TrainState | None:
        if position is not None:
            return copy.deepcopy(self.states[position])
        for later in [at for at in self.states if before is not None and at >= before]:
            del self.states[later]
        return copy.deepcopy(self.states[max(self.states)]) if self.states else None

    def should_stop(self) -> StopDecision:
        self.steps += 1
        return StopDecision(
            self.steps == self.stop_after, self.steps == self.preempted_after, self.steps == self.due_after
        )


@pytest.fixture(scope="session")
def recorder() -> Callable[..., Recorder]:
    return Recorder


@pytest.fixture(scope="session")
def tiny_recipe(root: Path) -> Recipe:
    return Recipe.model_validate(yaml.safe_load((root / "tests" / "tiny.yaml").read_text()))


@pytest.fixture(scope="session")
def tiny_clips(small_figures: Path) -> ClipDataset:
    return ClipDataset(str(small_figures), "train")


@pytest.fixture(scope="session")
def tiny_job(tiny_recipe: Recipe, tiny_clips: ClipDataset) -> Callable[..., Job]:
    """Return a function that makes the tiny training with changed settings: `stage1` and `stage2` as dicts."""

    def make(
        *,
        stage1: dict[str, Any] | None = None,
        stage2: dict[str, Any] | None = None,
        clips: Any = tiny_clips,
        model: dict[str, Any] | None = None,
        **training: Any,
    ) -> Job:
        old = tiny_recipe.training
        stages = {"stage1": replace(old.stage1, **(stage1 or {})), "stage2": replace(old.stage2, **(stage2 or {}))}
        changed = replace(old, **stages, **training)
        return Job(model=replace(tiny_recipe.model, **(model or {})), training=changed, seed=3, clips=clips)

    return make


@pytest.fixture(scope="session")
def first_report(
    made_once: Callable[[str, Callable[[Path], None]], Path], tiny_recipe: Recipe, small_figures: Path
) -> Path:
    """Return the folder of a real report on a run with random weights and a hostile name. Do not change it."""
    from tests.pipeline.untrained_report import report_folder, untrained_report

    def make(folder: Path) -> None:
        untrained_report(folder, name, tiny_recipe, small_figures, seed=0)

    name = "first <run>"
    return report_folder(made_once("first-report", make), name)

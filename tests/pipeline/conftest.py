"""A tiny training, as an object."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.recipe import Recipe
from pipeline.training.job import Job, QuietReporter, TrainPosition
from preprocessing.dataset.reader import ClipDataset


@dataclass
class Recorder(QuietReporter):
    """A reporter that keeps everything in memory, and asks to stop after `stop_after` steps."""

    records: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    states: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    audit: list[dict[str, Any]] = field(default_factory=list)
    stop_after: int | None = None
    asked: int = 0

    def log(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    def event(self, event: str, **details: Any) -> None:
        self.events.append({"event": event, **details})

    def save(self, state: dict[str, Any] | None, place: TrainPosition, *, last: bool, audit: Any = ()) -> None:
        assert state is not None
        self.states[place] = copy.deepcopy(state)
        self.audit += audit

    def latest(self, before: TrainPosition | None = None) -> dict[str, Any] | None:
        for place in [place for place in self.states if before is not None and place >= before]:
            del self.states[place]
        return copy.deepcopy(self.states[max(self.states)]) if self.states else None

    def at(self, place: TrainPosition) -> dict[str, Any]:
        return copy.deepcopy(self.states[place])

    def should_stop(self) -> bool:
        self.asked += 1
        return self.asked == self.stop_after


@pytest.fixture(scope="session")
def recorder() -> Callable[..., Recorder]:
    return Recorder


@pytest.fixture(scope="session")
def tiny_recipe(root: Path) -> Recipe:
    return Recipe.model_validate(yaml.safe_load((root / "tests" / "tiny.yaml").read_text()))


@pytest.fixture(scope="session")
def tiny_clips(figures_dataset: Path) -> ClipDataset:
    return ClipDataset(str(figures_dataset), "train")


@pytest.fixture(scope="session")
def tiny_job(tiny_recipe: Recipe, tiny_clips: ClipDataset) -> Callable[..., Job]:
    """The tiny training, with changes to its settings: `training`, `stage1` and `stage2` as dicts."""

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
        return Job(model=replace(tiny_recipe.model, **(model or {})), training=changed, seed=3, clips=clips, notes={})

    return make


@pytest.fixture(scope="session")
def first_report(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Recipe, figures_dataset: Path) -> Path:
    """The folder of a real report on a run with random weights, whose name is hostile. Not to be changed."""
    from tests.pipeline.untrained_report import untrained_report

    return untrained_report(tmp_path_factory.mktemp("first"), "first <run>", tiny_recipe, figures_dataset, seed=0)

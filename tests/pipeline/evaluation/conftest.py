"""An untrained run, pairs, samples; and every evaluation must start as many phases of progress as it announces."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import pytest

from cluster.cli.progress import ProgressDisplay
from pipeline import pairs
from pipeline.evaluation import execute
from pipeline.recipe import Recipe
from preprocessing.dataset.reader import ClipDataset
from tests.pipeline.evaluation.commands import SMALL, write_samples
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
def _counting_display(few_resamples: None, rough_probes: None) -> Iterator[None]:
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


@pytest.fixture(scope="module")
def exported(small_figures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    pairs.main(["--data", str(small_figures), "--out", str(folder), *SMALL])
    return folder


@pytest.fixture(scope="module")
def perfect(exported: Path, small_figures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write, as HOW.txt says, the real clip of B's identity in A's action for each pair, in files of seven."""
    folder = tmp_path_factory.mktemp("perfect")
    shutil.copytree(exported, folder, dirs_exist_ok=True)
    test = ClipDataset(str(small_figures), "test")
    index_of = {key: index for index, key in enumerate(test.keys)}
    known = {(test.identities[n], int(test.labels["action"][n])): n for n in range(len(test))}
    rows = json.loads((folder / "pairs.json").read_text())["wanted"]["swap"]
    for start in range(0, len(rows), 7):
        part = rows[start : start + 7]
        wanted = [
            (test.identities[index_of[row["static_of"]]], int(test.labels["action"][index_of[row["dynamics_of"]]]))
            for row in part
        ]
        write_samples(folder / f"part-{start}.npz", np.stack([test.frames(known[pair]) for pair in wanted]), part)
    return folder

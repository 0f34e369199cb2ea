"""Rows for trackers: each once and complete, whatever fails, without a training that waits."""

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.errors import UserError
from pipeline import train
from pipeline.runs.log import RunLog
from pipeline.trackers import tracking
from pipeline.trackers.feed import Feed
from pipeline.trackers.registry import tracked_run
from pipeline.trackers.tracker import MEDIA, Row
from pipeline.training.config import TrainingConfig
from tests.pipeline.runs.test_log import TRAINING, event, record


class Board:
    """A tracker in memory. `fail_at` steps fail: before they are kept, or, if `keeps`, after."""

    def __init__(self, fail_at: set[int] | None = None, *, keeps: bool = False) -> None:
        self.points: dict[str, list[int]] = {}
        self.files: list[str] = []
        self.is_closed = False
        self.fail_at, self.keeps = fail_at or set(), keeps
        self.failed = threading.Event()

    def newest(self, series: str) -> int:
        return max(self.points.get(series, []), default=-1)

    def add(self, row: Row) -> None:
        fails = row.step in self.fail_at
        if fails and not self.keeps:
            self._fail(row.step)
        for series in [*row.scalars, *([MEDIA] if row.media else [])]:
            self.points.setdefault(series, []).append(row.step)
        if fails:
            self._fail(row.step)

    def _fail(self, step: int) -> None:
        self.failed.set()
        self.fail_at.discard(step)
        raise ConnectionError("no route to host\nsecond line")

    def file(self, path: Path) -> None:
        self.files.append(path.name)

    def close(self) -> None:
        self.is_closed = True


def rows(*steps: int) -> list[Row]:
    return [Row(step, {"loss": step / 2}, {}) for step in steps]


@pytest.mark.parametrize("keeps", [False, True])
def test_a_tracker_that_fails_gets_each_row_once_later(keeps: bool, caplog: pytest.LogCaptureFixture) -> None:
    board = Board({2, 4}, keeps=keeps)
    feed = Feed("board", board, retry_s=0.0)
    feed.put(rows(1, 2, 3, 4, 5))
    feed.put([Path("folder/report.html")])
    while board.files == []:
        threading.Event().wait(0.001)
    assert feed.close(60) == 0
    assert board.points == {"loss": [1, 2, 3, 4, 5]}
    assert (board.files, board.is_closed) == (["report.html"], True)
    assert "board: no route to host; the training continues, and entries are kept for later" in caplog.messages


def test_the_error_of_a_tracker_is_shown_without_the_credentials_in_it(caplog: pytest.LogCaptureFixture) -> None:
    secret = "SECRET1" * 20
    board = Board()

    def refuse(row: Row) -> None:
        board.failed.set()
        raise ConnectionError(f"cannot reach https://me:{secret}@host/api and {'x' * 200}")

    board.add = refuse  # type: ignore[method-assign]
    feed = Feed("board", board, retry_s=0.01)
    feed.put([Row(1, {"loss/a": 1.0}, {})])
    assert board.failed.wait(60)
    assert feed.close(5) == 1
    assert "https://***@host/api" in caplog.text
    assert "SECRET1" not in caplog.text


def test_what_is_left_of_a_tracker_that_stays_away_is_counted_and_nobody_waits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    board = Board({1})
    feed = Feed("board", board, retry_s=3600.0)
    feed.put(rows(1, 2, 3))
    assert board.failed.wait(60)
    assert feed.close(60) == 3
    assert "board lacks the last 3 entries; they are sent when the run is resumed" in caplog.messages


def test_a_row_is_sent_in_part_if_the_tracker_holds_the_other_part() -> None:
    board = Board()
    board.points = {"loss": [4], MEDIA: [2]}
    feed = Feed("board", board)
    feed.put([Row(4, {"loss": 1.0, "elbo": 2.0}, {"picture": Path("p.png")}), Row(2, {"elbo": 0.0}, {})])
    assert feed.close(60) == 0
    assert board.points == {"loss": [4], MEDIA: [2, 4], "elbo": [4]}


def test_rows_that_were_not_sent_are_dropped_when_their_steps_are_repeated() -> None:
    board = Board({1})
    feed = Feed("board", board, retry_s=3600.0)
    feed.put(rows(1, 2, 3))
    assert board.failed.wait(60)
    feed.rewind(1)
    assert feed.close(60) == 1


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Board:
    """Return a tracker that stands in for Weights & Biases in logs of runs."""
    board = Board()
    monkeypatch.setattr(tracking, "open_feeds", lambda names, run: [Feed("wandb", board)])
    return board


TRACKED = TrainingConfig(stage1=TRAINING.stage1, stage2=TRAINING.stage2, trackers=("wandb",))


def images(stage: int, step: int) -> Mapping[str, Any]:
    pixels = np.zeros((4, 6, 3), np.uint8)
    return record(stage, step, "images") | {"images": {"swap": pixels, "swap moving": np.stack([pixels, pixels + 9])}}


def test_a_resumed_run_sends_what_the_tracker_lacks_and_nothing_twice(tmp_path: Path, board: Board) -> None:
    with RunLog(str(tmp_path), TRACKED) as first:
        first.take(event("start", 1, 0))
        for step in (4, 8, 12):
            first.take(record(1, step))
            first.take(images(1, step))
        first.take(record(1, 12, "validation"))
    assert board.points["validation/elbo"] == [12]
    board.points = {"loss/annealed": [4, 8, 12], MEDIA: [4]}  # what survived in a tracker that buffers
    board.points["kl/pose"] = [4]
    with RunLog(str(tmp_path), TRACKED) as second:
        second.take(event("resume", 1, 8))
        for step in (12, 16):
            second.take(record(1, step))
            second.take(images(1, step))
    assert board.points["loss/annealed"] == [4, 8, 12, 16]
    assert board.points["kl/pose"] == [4, 8, 12, 16]
    assert board.points[MEDIA] == [4, 8, 12, 16]
    assert not (tmp_path / "tensorboard").exists()
    kinds = {path.suffix: path.read_bytes()[:4] for path in (tmp_path / "samples").iterdir()}
    assert kinds == {".png": b"\x89PNG", ".gif": b"GIF8"}


def test_a_checkpoint_completes_the_row_of_its_step(tmp_path: Path, board: Board) -> None:
    with RunLog(str(tmp_path), TRACKED) as log:
        log.take(event("start", 1, 0))
        log.take(record(1, 4))
        log.take(record(1, 4, "validation"))
        assert board.points == {}  # more may come
        log.take({"kind": "checkpoint", "stage": 1, "step": 4})
        while "validation/elbo" not in board.points:
            threading.Event().wait(0.001)
        assert board.points["loss/annealed"] == [4]


def test_a_run_has_one_id_and_a_damaged_one_is_reported(tmp_path: Path) -> None:
    first = tracked_run(str(tmp_path), tmp_path, {})
    assert tracked_run(str(tmp_path), tmp_path, {}) == first
    assert (first.name, first.folder) == (tmp_path.name, tmp_path / "trackers")
    assert tracked_run(str(tmp_path / "other"), tmp_path, {}).id != first.id
    for damaged in ("{", "[]", json.dumps({"id": "../../x"}), json.dumps({"id": None})):
        (tmp_path / "trackers.json").write_text(damaged)
        with pytest.raises(UserError, match=r"trackers\.json is damaged; delete it"):
            tracked_run(str(tmp_path), tmp_path, {})


def test_a_tracker_that_is_not_installed_is_reported_before_the_training(
    small_figures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "mlflow" else object())
    args = ["--config", "tests/tiny.yaml", "--data", str(small_figures), "--out", str(tmp_path), "--name", "x"]
    args += ["--training.trackers", "tensorboard", "mlflow"]
    line = "this needs mlflow, which is not installed; pip install 'vdsm-pipeline[trackers]'"
    with pytest.raises(SystemExit, match="2"):
        train.main(args)
    assert capsys.readouterr().err == f"error: {line}\n"
    assert not (tmp_path / "x").exists()
    with pytest.raises(SystemExit, match="2"):
        train.main([*args, "--dry-run"])
    assert f"missing: trackers: {line}" in capsys.readouterr().out


def test_a_tracker_is_named_once() -> None:
    with pytest.raises(ValueError, match="trackers is wandb wandb; name each once"):
        TrainingConfig(trackers=("wandb", "wandb"))

"""The state of a running sweep, as a log line and as a table."""

import io
import logging
from pathlib import Path

import pytest
from optuna.trial import TrialState
from rich.console import Console

from pipeline.recipe import Recipe
from pipeline.tuning.live_table import LiveTable
from pipeline.tuning.study import ERROR, open_study
from pipeline.tuning.sweep import Sweep
from pipeline.tuning.trial import SweepContext

RATE = "training.stage1.learning_rate"


def test_a_round_shows_its_phase_its_trials_and_an_estimate(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    sweep = Sweep.model_validate({"space": {RATE: {"low": 1e-4, "high": 1e-2}}, "trials": 8})
    study = open_study(str(tmp_path / "study.journal"), "s", sweep, Recipe())
    context = SweepContext(sweep=sweep, data="", url=str(tmp_path), judge=None)
    study.tell(study.ask(), 0.25)
    seconds = 0.0
    with (
        caplog.at_level(logging.INFO),
        LiveTable(study, context, 8, "phase 2 of 2: trials", clock=lambda: seconds) as table,
    ):
        table.refresh()
        failed = study.ask()
        failed.set_user_attr(ERROR, "the loss is not finite")
        study.tell(failed, state=TrialState.FAIL)
        study.ask().suggest_float(RATE, 1e-4, 1e-2)
        seconds = 10
        table.refresh()  # too soon for another line
        seconds = 60
        table.refresh()
        # One trial took a minute, and six remain; the one that an earlier driver finished does not count.
        state = "2/8 (25%), 1 failed, 1 running, 6 min 00 s left, best disentanglement 0.2500 (trial 0)"
        assert table.line() == f"phase 2 of 2: trials: {state}"
        console = Console(width=200, file=io.StringIO())
        console.print(table.table())
    assert "learning_rate" in console.file.getvalue()  # type: ignore[attr-defined]
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith("phase 2 of 2: trials: 1/8 (12%), 0 running, 0 s elapsed")
    assert len(lines) == 3
    assert all(len(line) <= 100 - len("12:34:56 I ") for line in lines)
    assert lines[1].endswith("...")

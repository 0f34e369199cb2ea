"""The logs of a run: each step is logged once, and the progress display shows the newest metrics."""

import errno
import json
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cluster.cli.progress import ProgressDisplay
from cluster.cli.run import run
from cluster.errors import UserError
from cluster.storage import own_file
from pipeline.runs import log as log_module
from pipeline.runs.log import RunLog
from pipeline.trackers.tracker import TrackedRun
from pipeline.training.config import TrainingConfig
from pipeline.training.position import TrainPosition
from pipeline.training.stage_config import StageConfig

TRAINING = TrainingConfig(stage1=StageConfig(steps=24), stage2=StageConfig(steps=16))


def record(stage: int, step: int, kind: str = "train") -> dict[str, Any]:
    names = ["loss", "reconstruction", "kl_static", "kl_pose", "kl_dynamics", "clips_per_s", "seconds_per_step", "elbo"]
    names += ["weight_static", "weight_pose", "weight_dynamics", "temperature", "learning_rate", "gradient_norm"]
    names += ["data_wait_share", "memory_gb"]
    overall = step + (24 if stage == 2 else 0)
    position = {"kind": kind, "stage": stage, "step": step, "steps": 24, "overall_step": overall}
    return {**position, **dict.fromkeys(names, 0.5)}


def event(name: str, stage: int, step: int, **details: Any) -> dict[str, Any]:
    return {"kind": "event", "event": name, "stage": stage, "step": step, **details}


def test_repeated_steps_are_in_the_log_once(tmp_path: Path) -> None:
    with RunLog(str(tmp_path), TRAINING) as first:
        first.take(event("start", 1, 0))
        for stage, step in ((1, 10), (1, 20), (1, 24), (2, 4), (2, 8)):
            first.take(record(stage, step))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "sta')  # what a killed process may leave
    with RunLog(str(tmp_path), TRAINING, TrainPosition(2, 4)) as second:
        second.take(event("resume", 2, 4))
        second.take(record(2, 8))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in lines] == [(1, 10), (1, 20), (1, 24), (2, 4), (2, 8)]
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [(line["event"], line["stage"], line["step"]) for line in events] == [("start", 1, 0), ("resume", 2, 4)]


@pytest.mark.parametrize(
    ("torn", "kept"),
    [
        ('{"time": "2026", "event": "stag', []),
        ('{"time": "2026", "event": "killed"}', ["killed"]),  # complete but for its line break
        ("\0" * 100, []),
        ("{", []),
    ],
)
@pytest.mark.parametrize("before", ["", "start"])
def test_an_event_after_a_torn_line_is_on_a_line_of_its_own(
    torn: str, kept: list[str], before: str, tmp_path: Path
) -> None:
    path, content = tmp_path / "events.jsonl", '{"event": "start"}\n' if before else ""
    path.write_text(content + torn)
    RunLog(str(tmp_path), TRAINING).event("resume")
    assert path.read_text().startswith(content)
    found = [json.loads(line)["event"] for line in path.read_text().splitlines()]
    assert found == [*filter(None, [before]), *kept, "resume"]


def test_a_log_that_is_no_log_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text("my notes, without a line break")
    with pytest.raises(UserError, match=r"events\.jsonl: its last line is not JSON; delete that line"):
        RunLog(str(tmp_path), TRAINING).event("resume")
    assert (tmp_path / "events.jsonl").read_text() == "my notes, without a line break"


def test_tensorboard_shows_each_step_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.summary.writer import event_file_writer

    # Files of one second are read in the order of their names, which end in a count of this process: 10 is before 9. A
    # run that is resumed is a process of its own, in a later second.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))
    for name, begin, steps in (("start", 0, (4, 8, 12)), ("resume", 8, (12, 16))):
        with RunLog(str(tmp_path), TRAINING) as log:
            log.take(event(name, 1, begin))
            for step in steps:
                log.take(record(1, step))
            log.take(record(1, steps[-1], "validation"))
    board = EventAccumulator(str(tmp_path / "tensorboard"), purge_orphaned_data=True).Reload()
    assert [point.step for point in board.Scalars("loss/annealed")] == [4, 8, 12, 16]
    assert {"kl/pose", "speed/clips_per_s", "validation/elbo"} <= set(board.Tags()["scalars"])


@pytest.fixture
def every_line(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Log a progress line at every update, however long, and nothing in between."""
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.setattr(ProgressDisplay, "_log_regularly", lambda self: None)
    monkeypatch.setattr("pipeline.runs.progress.ProgressDisplay", partial(ProgressDisplay, interval_s=0.0))
    caplog.set_level("INFO")
    return caplog


def test_progress_shows_the_phase_and_every_metric(tmp_path: Path, every_line: pytest.LogCaptureFixture) -> None:
    with RunLog(str(tmp_path), TRAINING) as log:
        log.take(event("start", 1, 0))
        log.take(record(1, 12))
        log.take(record(1, 12, "validation"))
        log.take(record(1, 24))
        log.take(record(2, 4))
    lines = every_line.messages
    assert "phase 1 of 2: training stage 1: 0/24 (0%), 0 s elapsed, starting workers" in lines
    assert any(line.startswith("phase 1 of 2: training stage 1: 12/24 (50%), ") for line in lines)
    second = next(line for line in lines if line.startswith("phase 2 of 2: training stage 2: 4/16 (25%), "))
    metrics = ["steps/s", " left", "loss 0.5000", "KL static 0.50000 pose 0.50000"]
    metrics += ["waiting for data 50.0%", "reconstruction 0.5000", "weights static 0.5", "temperature 0.5"]
    metrics += ["learning rate 0.5", "gradient norm 0.5", "0.5 GB per worker"]
    for metric in metrics:
        assert metric in second, metric
    assert "validation ELBO 0.5000" in next(line for line in lines if ": 24/24 " in line)
    assert "validation ELBO" not in next(line for line in lines if ": 12/24 " in line) + second


def test_progress_of_a_resumed_run_leaves_out_finished_stages_and_steps(
    tmp_path: Path, every_line: pytest.LogCaptureFixture
) -> None:
    with RunLog(str(tmp_path), TRAINING, TrainPosition(1, 24)) as log:
        log.take(event("resume", 1, 24))
        log.take(record(2, 4))
        log.take(event("failure", 0, 0, error="killed"))
        log.take(event("resume", 2, 4))
    lines = every_line.messages
    assert "resuming from stage 1, step 24" in lines
    assert not any("phase" in line for line in lines)  # there is only one
    assert any(line.startswith("training stage 2: 4/16 (25%), 0 s elapsed, restarting workers") for line in lines)
    assert "resuming from stage 2, step 4" in lines


def test_events_are_warnings_on_their_own_lines(tmp_path: Path, every_line: pytest.LogCaptureFixture) -> None:
    with RunLog(str(tmp_path), TRAINING) as log:
        log.take(event("start", 1, 0))
        log.take(record(1, 12))
        log.take(event("preemption notice", 1, 12))
        log.take(event("divergence", 1, 13, error="stage 1, step 13: loss is not finite"))
        log.take(event("rollback", 1, 10, rate_factor=0.5, number=1))
    warnings = [line.getMessage() for line in every_line.records if line.levelname == "WARNING"]
    assert warnings == [
        "preemption notice received; saved a checkpoint at stage 1, step 12",
        "stage 1, step 13: loss is not finite",
        "rolled back to stage 1, step 10; learning rate scaled by 0.5 (rollback 1)",
    ]


@pytest.mark.parametrize("full", ["metrics.jsonl", "events.jsonl", "tensorboard"])
def test_a_full_disk_ends_the_run_with_one_line(
    full: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tensorboard.compat.tensorflow_stub.io.gfile import GFile
    from tensorboard.summary.writer.record_writer import RecordWriter

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(threading, "excepthook", threading.excepthook)

    def train(args: list[str]) -> None:
        with RunLog(str(tmp_path), TRAINING) as log:
            log.take(event("start", 1, 0))
            if full == "tensorboard":
                monkeypatch.setattr(RecordWriter, "write", fail)
                monkeypatch.setattr(GFile, "flush", fail)
            else:
                monkeypatch.setattr(own_file, "drop_torn_line", fail)
            for step in range(1, 20):
                log.take(record(1, step))
                log.event("stage finished")

    with pytest.raises(SystemExit) as stopped:
        run(train, [])
    assert stopped.value.code == 2
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith(f"error: {tmp_path}")
    assert "No space left on device; free space" in errors


SECRET = "SEC" + "RET1"
QUOTES = [
    f"https://me:{SECRET}@host/x", f"https://host/x?X-Amz-Signature={SECRET}&y=1", f'Client(password="{SECRET}")',
    f"token='{SECRET}'", f'say "token={SECRET}"', f'{{"url": "s3://K:{SECRET}@b/x"}}',
]  # fmt: skip


@pytest.mark.parametrize("quote", QUOTES)
def test_neither_logs_nor_trackers_hold_the_credentials_that_an_error_quotes(
    quote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def tracked(url: str, folder: Path, settings: Any) -> TrackedRun:
        given.append(settings)
        return TrackedRun(id="abcd", name="run", folder=folder, settings=settings)

    monkeypatch.setattr(log_module, "tracked_run", tracked)
    monkeypatch.setattr("pipeline.trackers.tracking.open_feeds", lambda names, run: given.append(run.settings) or [])
    training = replace(TRAINING, trackers=("tensorboard", "wandb"))
    with RunLog(str(tmp_path), training, settings={"source": {"path": quote}}) as log:
        log.take({"kind": "event", "event": "failure", "ranks": [0], "error": quote})
        log.take({"kind": "event", "event": "divergence", "stage": 1, "step": 1, "error": quote})
        log.event("gave up", error=quote, details={"of": [quote]})
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["failure", "divergence", "gave up"]
    assert "***" in json.loads(lines[0])["error"]
    assert given
    assert SECRET not in str(given)
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path

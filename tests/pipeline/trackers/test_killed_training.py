"""A training that is killed and resumed: its trackers show each step once, with the values of its log.

Weights & Biases is offline, MLflow writes files, Trackio its own database: the real libraries, where they are installed
(`pip install 'vdsm-pipeline[trackers]'`).
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.runs.store import read_recipe
from pipeline.torchrun.group import VARIABLES
from pipeline.trackers.registry import tracked_run
from pipeline.trackers.report import add_report
from pipeline.trackers.scalars import scalars_of

INSTALLED = [name for name in ("wandb", "mlflow", "trackio") if importlib.util.find_spec(name)]
NUMBERS = ["--training.stage1.steps", "60", "--training.log-interval", "1", "--training.picture-interval", "16"]
SECRET = "key-that-nobody-may-see"
Curves = dict[str, list[tuple[int, float]]]

pytestmark = pytest.mark.long


def train(root: Path, args: list[str], folder: Path) -> "subprocess.Popen[str]":
    environment = dict(os.environ) | dict(zip(VARIABLES, ("0", "1", "0", "1", "127.0.0.1", "29500"), strict=True))
    environment |= {"WANDB_MODE": "offline", "TRACKIO_DIR": str(folder / "trackio"), "WANDB_API_KEY": SECRET}
    command = [sys.executable, "-m", "pipeline.train", "--launcher", "torchrun", *args]
    return subprocess.Popen(command, cwd=root, env=environment, text=True, stdout=subprocess.DEVNULL, stderr=-1)


@pytest.fixture(scope="module")
def run(root: Path, small_figures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train with all installed trackers; kill it in stage 1, between two checkpoints, and resume it."""
    if not INSTALLED:
        pytest.skip("none of wandb, mlflow and trackio is installed; pip install 'vdsm-pipeline[trackers]'")
    folder = tmp_path_factory.mktemp("tracked")
    args = ["--config", "tests/tiny.yaml", "--data", str(small_figures), "--out", str(folder), "--name", "run"]
    args += ["--training.num-workers", "1", *NUMBERS, "--training.trackers", "tensorboard", *INSTALLED]
    log = folder / "run" / "metrics.jsonl"
    process = train(root, args, folder)
    while process.poll() is None and (not log.exists() or len(log.read_text().splitlines()) < 38):
        time.sleep(0.02)  # until the log has these lines
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, errors
    process = train(root, args, folder)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "resuming" in errors
    return folder / "run"


def logged(run: Path) -> Curves:
    curves: Curves = defaultdict(list)
    for line in (run / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        for tag, value in scalars_of(record).items():
            curves[tag].append((record["overall_step"], value))
    return curves


def wandb_records(run: Path, run_id: str) -> Iterator[tuple[str, Any]]:
    from wandb.proto.wandb_internal_pb2 import Record

    from pipeline.trackers.wandb_run import read_records

    files = sorted((run / "trackers" / "wandb").glob(f"offline-run-*/run-{run_id}.wandb"))
    assert len(files) >= 2  # one of each time that it was started
    for path in files:
        for content in read_records(path):
            record = Record.FromString(content)
            yield record.WhichOneof("record_type"), record


def wandb_curves(run: Path, run_id: str) -> tuple[Curves, set[int]]:
    curves, media = defaultdict(list), set()
    for kind, record in wandb_records(run, run_id):
        if kind != "history":
            continue
        for item in record.history.item:
            tag, value = item.key or ".".join(item.nested_key), json.loads(item.value_json)
            if not isinstance(value, int | float):
                media.add(record.history.step.num)
            elif not tag.startswith("_"):
                curves[tag].append((record.history.step.num, value))
    return curves, media


def mlflow_curves(run: Path, run_id: str) -> tuple[Curves, set[int]]:
    from mlflow.tracking import MlflowClient

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        client = MlflowClient(tracking_uri=(run / "trackers" / "mlruns").as_uri())
        experiment = client.get_experiment_by_name("vdsm")
        (found,) = client.search_runs([experiment.experiment_id])  # one run, not two
        assert (found.data.tags["vdsm.id"], found.info.status) == (run_id, "FINISHED")
        assert found.data.params["training.log_interval"] == "1"
        curves = {
            tag: [(point.step, point.value) for point in client.get_metric_history(found.info.run_id, tag)]
            for tag in found.data.metrics
        }
        names = [file.path for file in client.list_artifacts(found.info.run_id, "samples")]
    return curves, {int(name[-12:-4]) for name in names if name.endswith(".gif")}


def trackio_curves(run: Path, run_id: str) -> tuple[Curves, set[int]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(run.parent / "trackio"))
        from trackio import SQLiteStorage

        entries = SQLiteStorage.get_logs("vdsm", f"run-{run_id[:6]}")
    curves, media = defaultdict(list), set()
    for entry in entries:
        for tag, value in entry.items():
            if isinstance(value, dict):
                media.add(entry["step"])
            elif tag not in ("step", "timestamp") and not tag.startswith("_"):
                curves[tag].append((entry["step"], value))
    return curves, media


READERS = {"wandb": wandb_curves, "mlflow": mlflow_curves, "trackio": trackio_curves}


@pytest.mark.parametrize("name", READERS)
def test_a_tracker_shows_each_step_once_after_a_kill_and_a_resumption(name: str, run: Path) -> None:
    if name not in INSTALLED:
        pytest.skip(f"{name} is not installed; pip install 'vdsm-pipeline[trackers]'")
    run_id = tracked_run(str(run), run, {}).id
    curves, media = READERS[name](run, run_id)
    expected = logged(run)
    assert [step for step, _ in expected["loss/annealed"]] == list(range(1, 77))
    assert curves.keys() >= expected.keys()
    for tag, points in expected.items():
        assert [step for step, _ in curves[tag]] == [step for step, _ in points], tag
        if not tag.startswith("speed/"):  # measured anew in repeated steps
            assert [value for _, value in curves[tag]] == pytest.approx([value for _, value in points], rel=1e-6), tag
    assert media == {16, 32, 48, 60, 76}


def test_tensorboard_shows_the_same_and_animations(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(
        str(run / "tensorboard"), size_guidance={"images": 0, "scalars": 0}, purge_orphaned_data=True
    ).Reload()
    expected = logged(run)["loss/annealed"]
    points = board.Scalars("loss/annealed")
    assert [(point.step, pytest.approx(point.value, rel=1e-6)) for point in points] == expected
    shown = board.Images("stage 1/action transfer animated")
    assert [image.step for image in shown] == [16, 32, 48, 60]
    assert all(image.encoded_image_string.startswith(b"GIF89a") for image in shown)


def test_a_report_is_added_to_every_tracker_of_a_finished_run_and_no_step_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(run.parent / "trackio"))
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    (tmp_path / "report.html").write_text("<p>the report")
    (tmp_path / "metrics.json").write_text("{}")
    recipe, run_id = read_recipe(str(run)), tracked_run(str(run), run, {}).id
    add_report(str(run), recipe, str(tmp_path), is_finished=False)
    assert "the report is not added to" in caplog.text
    caplog.clear()
    add_report(str(run), recipe, str(tmp_path), is_finished=True)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith(("cluster", "pipeline"))]
    assert [line for line in ours if "tracker" in line or "report" in line] == []
    for name in INSTALLED:
        curves, _ = READERS[name](run, run_id)
        assert [step for step, _ in curves["loss/annealed"]] == list(range(1, 77)), name
    if "mlflow" in INSTALLED:
        assert sorted(path.name for path in run.glob("trackers/mlruns/*/*/artifacts/evaluation/*")) == [
            "metrics.json",
            "report.html",
        ]
    if "trackio" in INSTALLED:
        from trackio import SQLiteStorage

        assert len(SQLiteStorage.get_artifacts("vdsm")) == 2
    if "wandb" in INSTALLED:
        kinds = {kind for kind, _ in wandb_records(run, run_id)}
        assert "artifact" in kinds or "use_artifact" in kinds or "request" in kinds


def test_no_file_of_a_tracker_holds_a_credential(run: Path) -> None:
    files = [path for path in run.parent.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    assert SECRET.encode() not in b"".join(_zipped(run))


def _zipped(run: Path) -> Iterator[bytes]:
    """Yield the records of Weights & Biases, which may be split over blocks of the file."""
    if "wandb" in INSTALLED:
        from pipeline.trackers.wandb_run import read_records

        for path in run.glob("trackers/wandb/offline-run-*/*.wandb"):
            yield from read_records(path)

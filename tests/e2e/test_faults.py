"""What happens to a training when storage is unreachable or damaged, or a process hangs."""

import functools
import gzip
import json
import os
import random
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import api as storage
from pipeline.runs.checkpoints import position_of
from pipeline.runs.store import load_run
from pipeline.train import main
from tests.e2e.training_runs import (
    S3_INTERVAL,
    STAGES,
    accidents,
    assert_every_clip_once,
    assert_same_weights,
    events,
    reached,
    wait,
    workers,
)
from tests.s3_store import S3Store

pytestmark = pytest.mark.slow


def test_an_outage_of_s3_costs_nothing_but_time_and_traces_and_pictures_change_no_weight(
    local_ray: None,
    undisturbed: Path,
    train_args: Any,
    small_figures: Path,
    s3_store: S3Store,
    s3_bucket: str,
    tmp_path: Path,
    trials: Any,
) -> None:
    for name in storage.list_files(str(small_figures)):
        storage.upload(small_figures / name, f"{s3_bucket}/data/{name}")
    for number, (dice, instants) in enumerate(accidents(trials(1), "storage", last=36)):
        run, survived, is_training = f"{s3_bucket}/runs/run{number}", list[bool](), threading.Event()
        thread = threading.Thread(target=interrupt_storage, args=(s3_store, run, dice, instants, is_training, survived))
        is_training.set()
        thread.start()
        try:
            # Frequent checkpoints, so that some are being written when the storage becomes unreachable.
            args = ["--training.checkpoint-interval", "2", "--profile", "--training.picture-interval", "15"]
            main([*train_args(f"{s3_bucket}/runs", f"run{number}", f"{s3_bucket}/data"), *args])
        finally:
            is_training.clear()
            thread.join()
        assert survived == [True] * len(instants)
        assert events(run)[-1] == "finished"
        assert_same_weights(run, undisturbed, tmp_path)
        assert_every_clip_once(run, undisturbed)
        assert_complete(run)
        assert_traces_and_pictures(run, tmp_path / str(number))


def assert_complete(run: str) -> None:
    _, _, origin = load_run(run)
    assert (origin["stage"], origin["step"], origin["finished"]) == (2, 24, True)
    files = storage.list_files(run)
    assert {"config.yaml", "events.jsonl", "metrics.jsonl", "run.json", "stage1.pt", "stage2.pt"} <= set(files)
    assert any(name.startswith("tensorboard/") for name in files)
    assert "checkpoints/stage2-step00000024.pt" in files
    assert ".lock" not in files


def assert_traces_and_pictures(run: str, scratch: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    files = storage.list_files(run)
    traces = [f"profile/stage{stage}-rank{rank}.json.gz" for stage in (1, 2) for rank in (0, 1)]
    assert sorted(name for name in files if name.startswith("profile/")) == traces
    for name in traces:
        trace = json.loads(gzip.decompress(storage.read_bytes(f"{run}/{name}")))
        assert any("ProfilerStep" in str(event.get("name")) for event in trace["traceEvents"])
    (scratch / "tensorboard").mkdir(parents=True)
    for name in files:
        if name.startswith("tensorboard/"):
            storage.download(f"{run}/{name}", scratch / name)
    board = EventAccumulator(str(scratch / "tensorboard"), size_guidance={"images": 0}).Reload()
    shown = {tag: [image.step for image in board.Images(tag)] for tag in board.Tags()["images"]}
    assert shown == {
        f"stage {stage}/{name}": steps
        for name in ("reconstruction", "action transfer", "action transfer animated")
        for stage, steps in ((1, [15, 30, 36]), (2, [51, 60]))
    }


def interrupt_storage(
    store: S3Store,
    run: str,
    dice: random.Random,
    instants: list[int],
    is_training: threading.Event,
    survived: list[bool],
) -> None:
    """Kill the server once the run has saved each of the steps, and restart it; record whether the run waited."""
    for instant in instants:
        wait(functools.partial(has_saved, run, instant), "it has saved the step", interval=S3_INTERVAL)
        time.sleep(dice.uniform(0, 0.4))
        store.kill()
        time.sleep(10)  # longer than the S3 client itself retries a refused connection: less than 7 s
        survived.append(is_training.is_set())
        store.start()


def has_saved(run: str, step: int) -> bool:
    return saved(run) >= step


def saved(run: str) -> int:
    """Return the overall step of the newest checkpoint of a run."""
    positions = [position_of(name.removeprefix("checkpoints/")) for name in storage.list_files(run)]
    return max((at.step + STAGES[0] * (at.stage - 1) for at in positions if at is not None), default=0)


@pytest.mark.long
def test_a_worker_that_hangs_is_detected_and_replaced(
    local_ray: None, undisturbed: Path, train_args: Any, tmp_path: Path
) -> None:
    run, stopped = tmp_path / "run", []

    def stop() -> None:
        wait(reached(run, 24), "step 24")
        stopped.append(workers(run)[1]["pid"])
        os.kill(stopped[0], signal.SIGSTOP)

    thread = threading.Thread(target=stop)
    thread.start()
    try:
        # Longer than the ranks of a busy machine differ in starting.
        main([*train_args(tmp_path, "run"), "--training.stall-timeout-s", "12"])
    finally:
        thread.join()
        with suppress(ProcessLookupError):
            os.kill(stopped[0], signal.SIGKILL)
    assert [event for event in events(run) if event != "stage finished"] == ["start", "failure", "resume", "finished"]
    assert_same_weights(run, undisturbed, tmp_path)


def test_wrong_credentials_are_one_clear_line(
    s3_bucket: str, train_args: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    with pytest.raises(SystemExit) as caught:
        main(train_args(f"{s3_bucket}/runs", "run"))
    assert caught.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "S3 refused the credentials" in error
    assert "not-the-secret" not in error


def test_a_shard_that_is_damaged_in_s3_is_named_and_ends_the_run(
    local_ray: None,
    train_args: Any,
    small_figures: Path,
    s3_bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VDSM_CACHE", str(tmp_path / "cache"))
    for name in storage.list_files(str(small_figures)):
        data = bytearray((small_figures / name).read_bytes())
        if name == "train/shard-000000.tar":
            data[len(data) // 2] ^= 1
        storage.write_bytes(f"{s3_bucket}/data/{name}", bytes(data))
    with pytest.raises(SystemExit) as caught:
        main([*train_args(tmp_path, "run", f"{s3_bucket}/data"), "--training.num-workers", "1"])
    assert caught.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{s3_bucket}/data/train/shard-000000.tar: its length or SHA-256 does not match the manifest" in error

"""Logs of a run in S3: never uploaded twice as often as needed, and always readable up to the last checkpoint."""

import json
from pathlib import Path

import pytest

from cluster.storage import api as storage
from cluster.storage import s3
from cluster.storage.errors import MissingFileError
from pipeline.runs import log_upload
from pipeline.runs.log import RunLog
from pipeline.runs.log_upload import PARTS, GrowingLog, read_log
from pipeline.training.config import TrainingConfig
from pipeline.training.stage_config import StageConfig
from tests.pipeline.runs.test_log import event, record

TRAINING = TrainingConfig(stages="1", stage1=StageConfig(steps=100_000))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the bytes of each request that writes to S3; logs are split from the first kilobyte on."""
    sizes: list[int] = []
    write, upload = s3.write_bytes, s3.upload
    monkeypatch.setattr(log_upload, "WHOLE_BYTES", 1000)
    monkeypatch.setattr("pipeline.runs.log.BOARD_BYTES", 5000)
    monkeypatch.setattr(s3, "write_bytes", lambda url, data: (sizes.append(len(data)), write(url, data)))
    monkeypatch.setattr(s3, "upload", lambda path, url: (sizes.append(path.stat().st_size), upload(path, url)))
    return sizes


def lines(content: bytes) -> list[int]:
    return [json.loads(line)["step"] for line in content.splitlines()]


def test_a_log_is_read_to_its_last_upload_and_costs_at_most_four_times_its_length(
    tmp_path: Path, s3_bucket: str, sent: list[int]
) -> None:
    path, url = tmp_path / "metrics.jsonl", f"{s3_bucket}/run/metrics.jsonl"
    log = GrowingLog(path, url)
    log.upload()
    with pytest.raises(MissingFileError):
        read_log(url)
    for number in range(200):
        with path.open("a") as file:
            file.write(f'{{"step": {number}, "filling": "{"x" * 70}"}}\n')
        log.upload()
        if number % 40 == 0:
            assert read_log(url) == path.read_bytes()
    length = path.stat().st_size
    assert sum(sent) < 3.1 * length
    before = len(sent)
    log.upload()
    assert len(sent) == before, "nothing was new"
    log.upload(complete=True)
    assert storage.read_bytes(url) == path.read_bytes() == read_log(url)
    assert storage.list_files(url + PARTS) == []


def test_parts_of_a_log_that_was_rewritten_are_not_read(tmp_path: Path, s3_bucket: str, sent: list[int]) -> None:
    path, url = tmp_path / "metrics.jsonl", f"{s3_bucket}/run/metrics.jsonl"
    log = GrowingLog(path, url)
    line = '{"step": %d, "filling": "' + "x" * 300 + '"}\n'
    for number in range(10):
        with path.open("a") as file:
            file.write(line % number)
        log.upload()
    stale = {name: storage.read_bytes(f"{url}{PARTS}/{name}") for name in storage.list_files(url + PARTS)}
    assert stale
    path.write_text("".join(line % number for number in range(8)) + line % 100 + line % 101 + line % 102)
    log.rewritten()
    log.upload()
    for name, content in stale.items():  # as after a kill between the upload and the deletion of the parts
        storage.write_bytes(f"{url}{PARTS}/{name}", content)
    assert lines(read_log(url)) == [*range(8), 100, 101, 102]


def test_a_run_in_s3_that_was_killed_resumes_its_log_and_the_uploads_grow_with_the_steps(
    tmp_path: Path, s3_bucket: str, sent: list[int]
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, costs = f"{s3_bucket}/run", []
    killed = RunLog(run, TRAINING).__enter__()  # never closed
    killed.take(event("start", 1, 0))
    for step in range(1, 101):
        killed.take(record(1, step))
        killed.take({"kind": "checkpoint", "stage": 1, "step": step})
        costs.append(sum(sent))
    assert lines(read_log(f"{run}/metrics.jsonl")) == list(range(1, 101))
    assert costs[-1] < 3 * costs[49], "twice the steps would cost four times as much if all were uploaded each time"
    killed._progress.display.__exit__(None, None, None)
    with RunLog(run, TRAINING) as resumed:
        resumed.take(event("resume", 1, 90))
        resumed.take(record(1, 91))
    assert lines(storage.read_bytes(f"{run}/metrics.jsonl")) == list(range(1, 92))
    events = [json.loads(line)["event"] for line in storage.read_bytes(f"{run}/events.jsonl").splitlines()]
    assert events == ["start", "resume"]
    boards = [name for name in storage.list_files(run) if name.startswith("tensorboard/")]
    assert len(boards) > 3
    points = set()
    for number, name in enumerate(boards):
        storage.download(f"{run}/{name}", tmp_path / str(number) / name)
        board = EventAccumulator(str(tmp_path / str(number) / "tensorboard")).Reload()
        points |= {point.step for point in board.Scalars("loss/annealed")} if board.Tags()["scalars"] else set()
    assert points == set(range(1, 101))

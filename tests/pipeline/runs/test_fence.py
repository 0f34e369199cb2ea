"""A driver or worker that lost the lock of its run writes nothing more."""

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import pytest

from cluster.storage import api as storage
from cluster.storage import lock as locks
from cluster.storage import s3, s3_client
from cluster.storage.errors import UnreachableError
from cluster.storage.fence import Fence, active_fences, check_all, check_write, fenced
from cluster.storage.lock import LostLockError, run_lock
from cluster.storage.lock_owner import lock_content
from pipeline.recipe import Recipe
from pipeline.runs.checkpoints import CheckpointStore
from pipeline.runs.log import RunLog
from pipeline.training.position import TrainPosition
from pipeline.training.state import TrainState

METRICS = {"kind": "validation", "stage": 1, "step": 4, "elbo": 0.5}
START = {"kind": "event", "event": "start", "stage": 1, "step": 0}


@pytest.fixture(params=["folder", "folder without locks", pytest.param("s3", marks=pytest.mark.s3)])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder without locks":
        request.getfixturevalue("file_system_without_locks")
    return f"{request.getfixturevalue('s3_bucket')}/run" if request.param == "s3" else str(tmp_path / "run")


@pytest.fixture
def lost(run: str) -> Iterator[Callable[[], dict[str, bytes]]]:
    """Hold the lock of the run; return a function that has another process take it over and write its files."""

    def take_over() -> dict[str, bytes]:
        storage.write_bytes(f"{run}/.lock", lock_content())
        return contents(run)

    with run_lock(run, renewal_s=1000):
        RunLog(run, Recipe().training).event("start")
        for name in ("stage1.pt", "stage2.pt", "events.jsonl", "metrics.jsonl", "run.json"):
            storage.write_bytes(f"{run}/{name}", b"of another process\n")
        yield take_over


def contents(run: str) -> dict[str, bytes]:
    return {name: storage.read_bytes(f"{run}/{name}") for name in storage.list_files(run)}


def state(step: int) -> TrainState:
    return TrainState(position=TrainPosition(1, step), model_config={}, weights={}, temperature=1.0)


def save_checkpoint(run: str, *, last: bool, audit: Sequence[dict[str, int]] = ({"step": 1},)) -> None:
    store = CheckpointStore(run, Recipe().training)
    try:
        store.save(state(Recipe().training.stage1.steps), last=last, audit=audit)
        store.flush()
    finally:
        store.close()


def log_and_close(run: str, record: dict[str, Any]) -> None:
    with RunLog(run, Recipe().training) as log:
        log.take(record)


def log_event(run: str) -> None:
    with RunLog(run, Recipe().training) as log:
        log.event("gave up")


WRITES: dict[str, Callable[[str], object]] = {
    "a checkpoint": lambda run: save_checkpoint(run, last=False),
    "the end of a stage": lambda run: save_checkpoint(run, last=True),
    "a search for the newest checkpoint": lambda run: CheckpointStore(run, Recipe().training).newest(),
    "a checkpoint without an audit": lambda run: save_checkpoint(run, last=False, audit=()),
    "an event": lambda run: log_and_close(run, START),
    "an event of the driver": lambda run: log_event(run),
    "metrics": lambda run: log_and_close(run, METRICS),
    "a checkpoint's record": lambda run: log_and_close(run, {"kind": "checkpoint", "stage": 1, "step": 1}),
    "a file": lambda run: storage.write_bytes(f"{run}/stage2.pt", b"late"),
    "a small file": lambda run: upload(run, 20_000),
    "a large file": lambda run: upload(run, 20_000_000),
    "a new file": lambda run: storage.create(f"{run}/new", b"late"),
    "a removal": lambda run: storage.delete(f"{run}/stage1.pt"),
}


def upload(run: str, size: int) -> None:
    source = Path(os.environ["VDSM_CACHE"]) / "large"
    source.write_bytes(bytes(size))
    storage.upload(source, f"{run}/stage2.pt")


@pytest.mark.parametrize("write", WRITES)
def test_whoever_lost_the_lock_writes_nothing_more(
    write: str, run: str, lost: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VDSM_CACHE", str(tmp_path))
    before = lost()
    with pytest.raises(LostLockError, match="another process took over this run") as caught:
        WRITES[write](run)
    assert "\n" not in str(caught.value)
    assert contents(run) == before


@pytest.mark.parametrize("write", ["a large file", "a checkpoint", "a checkpoint without an audit", "a file"])
def test_a_lock_that_is_lost_during_a_write_is_noticed_before_the_file_appears(
    write: str, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VDSM_CACHE", str(tmp_path))
    if run.startswith("s3") and write != "a large file":
        pytest.skip("one request")
    found = locks.read_token
    with run_lock(run, renewal_s=1000):
        storage.write_bytes(f"{run}/stage2.pt", b"of another process")
        before, answers = contents(run), iter([True])
        with monkeypatch.context() as patch:
            patch.setattr(locks, "read_token", lambda content: found(content) if next(answers, False) else "another")
            with pytest.raises(LostLockError, match="another process took over this run"):
                WRITES[write](run)
        assert contents(run) == before


@pytest.mark.s3
@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("write", ["a file", "a small file"])
def test_a_process_that_is_paused_between_its_check_and_its_request_replaces_nothing(
    write: str, exists: bool, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VDSM_CACHE", str(tmp_path))
    run, paused = f"{s3_bucket}/run", []

    def check_and_pause(url: str) -> None:
        check_write(url)
        if url.endswith("stage2.pt") and not paused:
            paused.append(url)
            take_over(run)

    with run_lock(run, renewal_s=1000):
        if exists:
            storage.write_bytes(f"{run}/stage2.pt", b"before")
        monkeypatch.setattr(s3_client, "check_write", check_and_pause)
        with pytest.raises(LostLockError, match="another process took over this run"):
            WRITES[write](run)
    assert paused
    assert storage.read_bytes(f"{run}/stage2.pt") == b"of another process"


def take_over(run: str) -> None:
    """Take over the lock of a run in S3 and write a file of it, as another process does."""
    bucket, _, prefix = run.removeprefix("s3://").partition("/")
    other = boto3.session.Session().client("s3")
    for name, content in ((".lock", lock_content()), ("stage2.pt", b"of another process")):
        other.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=content)


@pytest.mark.s3
def test_a_write_whose_response_was_lost_is_repeated_behind_a_fence(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, unchanged = f"{s3_bucket}/run", s3._unchanged
    lost: list[str] = []

    def lose_a_response(url: str) -> dict[str, str]:
        condition = unchanged(url)
        if not lost:  # the request arrives, and its response does not
            lost.append(url)
            s3.write_if(url, b"content", None)
        return condition

    with run_lock(run, renewal_s=1000):
        monkeypatch.setattr(s3, "_unchanged", lose_a_response)
        storage.write_bytes(f"{run}/file", b"content")
    assert lost
    assert storage.read_bytes(f"{run}/file") == b"content"


def test_a_worker_with_a_copy_of_the_fence_is_stopped_too(run: str) -> None:
    with run_lock(run, renewal_s=1000):
        fences = pickle.loads(pickle.dumps(active_fences()))
    # The driver has ended, and its lock is released; the worker is still alive.
    with fenced(*fences), pytest.raises(LostLockError, match="was released or deleted"):
        storage.write_bytes(f"{run}/stage1.pt", b"late")
    with run_lock(run), fenced(*fences), pytest.raises(LostLockError, match="another process took over"):
        storage.write_bytes(f"{run}/stage1.pt", b"late")
    assert not storage.exists(f"{run}/stage1.pt")


def test_a_checkpoint_that_is_written_after_its_worker_has_failed_is_fenced_too(run: str) -> None:
    with run_lock(run, renewal_s=1000):
        store = CheckpointStore(run, Recipe().training)
    store.save(state(1), last=False)
    with pytest.raises(LostLockError, match="was released or deleted"):
        store.flush()
    store.close()
    assert not any(name.endswith(".pt") for name in contents(run))


@pytest.mark.slow
def test_a_checkpoint_waits_while_its_lock_cannot_be_read(tmp_path: Path) -> None:
    """An outage of the storage between two checkpoints is met by the check of the lock first."""
    run, outages = str(tmp_path / "run"), [0, 1, 2]

    def check() -> None:
        if outages:
            outages.pop()
            raise UnreachableError("the S3 server does not respond")

    with fenced(Fence(run, check)):
        save_checkpoint(run, last=False, audit=())
    assert not outages
    assert any(name.endswith(".pt") for name in contents(run))


def test_other_folders_are_not_fenced(run: str, lost: Any) -> None:
    lost()
    storage.write_bytes(f"{run}-other/file", b"")
    storage.delete(f"{run}-other/file")
    with pytest.raises(LostLockError):
        check_all()


@pytest.mark.s3
def test_a_renewal_while_the_lock_is_read_is_no_loss(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run, head = f"{s3_bucket}/run", s3.head
    renewed: list[str] = []

    def head_before_a_renewal(url: str) -> tuple[int, str]:
        found = head(url)
        if not renewed:
            renewed.append(url)
            s3.write_bytes(url, lock_content(token))
        return found

    with run_lock(run, renewal_s=1000):
        token = locks.read_token(storage.read_bytes(f"{run}/.lock"))
        monkeypatch.setattr(s3, "head", head_before_a_renewal)
        check_all()
    assert renewed == [f"{run}/.lock"]


def test_no_fence_is_left_behind(run: str) -> None:
    with suppress(KeyError), run_lock(run):
        raise KeyError
    assert active_fences() == ()
    storage.write_bytes(f"{run}/file", b"")

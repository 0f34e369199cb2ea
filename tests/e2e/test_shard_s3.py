"""Sharding from bucket to bucket while the server dies and connections break: the same bytes as in a local folder."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

from cluster.development.s3_server import S3Server
from cluster.storage import api as storage
from cluster.storage.errors import StorageError
from preprocessing import shard, verify
from tests.cluster.storage.fault_proxy import Fault, fault_proxy
from tests.e2e.shard_job import SETTINGS, ShardJob, tree
from tests.e2e.training_runs import S3_INTERVAL, wait
from tests.s3_store import ACCESS_KEY, READER, READERS_SECRET, SECRET, S3Store

pytestmark = pytest.mark.slow


@pytest.fixture
def bucket(s3_bucket: str, videos: Path) -> str:
    """Return the URL of a bucket that holds the videos; the environment holds the server's address and credentials."""
    for path in videos.iterdir():
        storage.upload(path, f"{s3_bucket}/videos/{path.name}")
    return s3_bucket


@pytest.fixture(scope="module")
def wanted(sharded_videos: Path) -> dict[str, str]:
    """Return the hashes of a local run, without the list of inputs: it holds times locally, and ETags in a bucket."""
    return without_versions(tree(str(sharded_videos)))


def without_versions(files: dict[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in files.items() if name != "inputs.jsonl"}


@pytest.fixture
def run(root: Path, bucket: str, tmp_path: Path) -> Iterator[Callable[..., ShardJob]]:
    """Start the job from bucket to bucket."""
    jobs: list[ShardJob] = []

    def started(**variables: str) -> ShardJob:
        jobs.append(ShardJob(root, tmp_path, f"{bucket}/videos", f"{bucket}/data", **variables))
        return jobs[-1]

    yield started
    for job in jobs:
        job.end()


def assert_complete(out: str, wanted: dict[str, str]) -> None:
    """Assert the bytes of a local run, and that no secret was stored."""
    assert without_versions(tree(out)) == wanted
    stored = b"".join(storage.read_bytes(f"{out}/{name}") for name in storage.list_files(out))
    for secret in (SECRET, READERS_SECRET):
        assert secret.encode() not in stored


@pytest.mark.long
def test_a_server_that_is_killed_and_restarted_costs_only_time(
    local_ray: None, s3_store: S3Store, bucket: str, wanted: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    sharding, survived = threading.Event(), []

    def shard_is_written() -> bool:
        return any(name.endswith(".tar") for name in storage.list_files(f"{bucket}/data"))

    def disturb() -> None:
        wait(shard_is_written, "a shard is written", interval=S3_INTERVAL)
        s3_store.kill()
        time.sleep(10)  # longer than the S3 client itself retries a refused connection: less than 7 s
        survived.append(sharding.is_set())
        s3_store.start()

    thread = threading.Thread(target=disturb)
    thread.start()
    sharding.set()
    try:
        args = ["--source.name", "videos", "--source.path", f"{bucket}/videos", *SETTINGS]
        shard.main([*args, "--shards.concurrency", "1", "--out", f"{bucket}/data"])
    finally:
        sharding.clear()
        thread.join()
    assert survived == [True]  # it waited
    assert_complete(f"{bucket}/data", wanted)
    logs = Path(ray.nodes()[0]["ObjectStoreSocketName"]).parents[1] / "logs"
    assert list(logs.iterdir())
    printed = "".join(capfd.readouterr())
    for secret in (SECRET, READERS_SECRET):
        assert secret not in printed
        assert not [path for path in logs.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


@pytest.mark.long
def test_connections_that_break_in_the_middle_of_objects_change_no_byte(
    s3_server: S3Server, bucket: str, run: Callable[..., ShardJob], wanted: dict[str, str]
) -> None:
    draw, lock, cuts, in_a_row = random.Random(0), threading.Lock(), list[str](), Counter[tuple[str, str]]()

    def cut(method: str, path: str, number: int) -> Fault | None:
        with lock:
            # Never more failures of a request than the client's attempts: a fourth would rightly end the job.
            if in_a_row[method, path] == 2 or (draw.random() < 0.7 and number > 0):  # the first of each method fails
                in_a_row[method, path] = 0
                return None
            in_a_row[method, path] += 1
            offset = draw.randrange(0, 60_000)
            cuts.append(method)
        if method == "PUT":
            return draw.choice((Fault(cut_request=offset), Fault(lose_answer=True), Fault(status=503)))
        return Fault(cut_answer=offset) if method == "GET" else Fault(status=500, code="InternalError")

    with fault_proxy(s3_server.endpoint, cut) as proxy:
        job = run(AWS_ENDPOINT_URL=proxy.endpoint)
        job.finish()
    assert {"GET", "PUT"} <= set(cuts)
    log = job.log.read_text()
    assert job.finish() == 0, log
    assert_complete(job.out, wanted)
    sessions = [path for path in job.log.parent.rglob("*") if path.is_file()]
    for secret in (SECRET, READERS_SECRET):
        assert secret not in log
        assert not [path for path in sessions if secret.encode() in path.read_bytes()]


def test_read_only_keys_suffice_to_verify_and_not_to_write(
    bucket: str,
    small_figures: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in storage.list_files(str(small_figures)):
        storage.upload(small_figures / name, f"{bucket}/figures/{name}")
    key = "train/shard-000001.tar"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READERS_SECRET)
    with pytest.raises(StorageError, match="refused the credentials or they lack the permission"):
        storage.write_bytes(f"{bucket}/figures/{key}", b"")
    verify.main([f"{bucket}/figures"])
    assert "all 72 clips in" in capsys.readouterr().out
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    data = bytearray(storage.read_bytes(f"{bucket}/figures/{key}"))
    data[5000] ^= 1
    storage.write_bytes(f"{bucket}/figures/{key}", bytes(data))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READERS_SECRET)
    with pytest.raises(SystemExit) as end:
        verify.main([f"{bucket}/figures"])
    assert end.value.code == 1
    assert f"damaged: {key}: clip " in capsys.readouterr().err


def test_a_wrong_key_is_reported_at_once(root: Path, bucket: str, run: Callable[..., ShardJob]) -> None:
    job = run(AWS_SECRET_ACCESS_KEY="wrong-Pk37")
    assert job.finish(60) == 2
    log = job.log.read_text()
    assert "wrong-Pk37" not in log
    assert "Traceback" not in log
    last = log.splitlines()[-1]
    assert last.startswith(f"error: {bucket}/videos: S3 refused the credentials or they lack the permission")

"""Sharding from bucket to bucket while the server dies and connections break: the same bytes as in a local folder."""

import os
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import boto3
import pytest

from cluster.development.s3_server import S3Server, serve
from cluster.storage import api as storage
from cluster.storage.errors import StorageError
from preprocessing import verify
from tests.cluster.storage.fault_proxy import Fault, fault_proxy
from tests.e2e.shard_job import ShardJob, tree
from tests.preprocessing.video_files import make_videos

pytestmark = pytest.mark.slow

SECRET, READERS_SECRET = "job-secret-Wq73x", "reader-secret-Lm20z"


class Store:
    """A server that can be killed and restarted with the same data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running = ExitStack()
        self.server = self.start()

    def start(self) -> S3Server:
        self.server = self._running.enter_context(
            serve(self._folder, access_key="job", secret_key=SECRET, read_only=("reader", READERS_SECRET))
        )
        return self.server

    def kill(self) -> None:
        os.kill(self.server.pid, signal.SIGKILL)
        self._running.close()

    def close(self) -> None:
        self._running.close()


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "videos"
    make_videos(folder, 10)
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    running = Store(tmp_path_factory.mktemp("store"))
    yield running
    running.close()


@pytest.fixture
def bucket(store: Store, videos: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of a bucket that holds the videos; the environment holds the server's address and credentials."""
    for name, value in store.server.environment().items():
        monkeypatch.setenv(name, value)
    name = f"b{uuid.uuid4().hex[:12]}"
    boto3.session.Session().client("s3").create_bucket(Bucket=name)
    for path in videos.iterdir():
        storage.upload(path, f"s3://{name}/videos/{path.name}")
    return f"s3://{name}"


@pytest.fixture(scope="module")
def undisturbed(root: Path, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the hashes of a local run, without the list of inputs: it holds times locally, and ETags in a bucket."""
    folder = tmp_path_factory.mktemp("local")
    job = ShardJob(root, folder, str(videos), str(folder / "data"))
    assert job.finish() == 0, job.log.read_text()
    job.end()
    return without_versions(tree(str(folder / "data")))


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


def assert_complete(job: ShardJob, wanted: dict[str, str]) -> None:
    """Assert success, the bytes of a local run, and that no secret was logged or stored."""
    log = job.log.read_text()
    assert job.finish() == 0, log
    assert without_versions(tree(job.out)) == wanted
    stored = b"".join(storage.read_bytes(f"{job.out}/{name}") for name in storage.list_files(job.out))
    sessions = [path for path in job.log.parent.rglob("*") if path.is_file()]
    for secret in (SECRET, READERS_SECRET):
        assert secret not in log
        assert secret.encode() not in stored
        assert not [path for path in sessions if secret.encode() in path.read_bytes()]


def test_a_server_that_is_killed_and_restarted_costs_only_time(
    store: Store, bucket: str, run: Callable[..., ShardJob], undisturbed: dict[str, str]
) -> None:
    job = run()

    def written() -> bool:
        return any(name.endswith(".tar") for name in storage.list_files(f"{bucket}/data"))

    assert job.wait_until(written), job.log.read_text()
    store.kill()
    time.sleep(6)
    assert job.process.poll() is None, job.log.read_text()
    store.start()
    assert_complete(job, undisturbed)


def test_connections_that_break_in_the_middle_of_objects_change_no_byte(
    store: Store, bucket: str, run: Callable[..., ShardJob], undisturbed: dict[str, str]
) -> None:
    draw, lock, cuts = random.Random(0), threading.Lock(), []

    def cut(method: str, path: str, number: int) -> Fault | None:
        with lock:
            if draw.random() < 0.7 and number > 0:  # the first request of each method always fails
                return None
            offset = draw.randrange(0, 60_000)
            cuts.append(method)
        if method == "PUT":
            return draw.choice((Fault(cut_request=offset), Fault(lose_answer=True), Fault(status=503)))
        return Fault(cut_answer=offset) if method == "GET" else Fault(status=500, code="InternalError")

    with fault_proxy(store.server.endpoint, cut) as proxy:
        job = run(AWS_ENDPOINT_URL=proxy.endpoint)
        job.finish()
    assert {"GET", "PUT"} <= set(cuts)
    assert_complete(job, undisturbed)


def test_read_only_keys_suffice_to_verify_and_not_to_write(
    store: Store,
    bucket: str,
    figures_dataset: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in storage.list_files(str(figures_dataset)):
        storage.upload(figures_dataset / name, f"{bucket}/figures/{name}")
    key = "train/shard-000001.tar"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READERS_SECRET)
    with pytest.raises(StorageError, match="refused the credentials or they lack the permission"):
        storage.write_bytes(f"{bucket}/figures/{key}", b"")
    verify.main([f"{bucket}/figures"])
    assert "all 72 clips in" in capsys.readouterr().out
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "job")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    data = bytearray(storage.read_bytes(f"{bucket}/figures/{key}"))
    data[5000] ^= 1
    storage.write_bytes(f"{bucket}/figures/{key}", bytes(data))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
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

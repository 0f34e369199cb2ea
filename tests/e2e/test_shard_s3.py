"""Sharding from a bucket into a bucket while the server dies and connections break: the bytes are those of a folder."""

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
from tests.preprocessing.made_videos import make_films

pytestmark = pytest.mark.slow

SECRET, READERS_SECRET = "job-secret-Wq73x", "reader-secret-Lm20z"


class Store:
    """A server that can be killed and started again where it was."""

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
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "films"
    make_films(folder, 10)
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    running = Store(tmp_path_factory.mktemp("store"))
    yield running
    running.close()


@pytest.fixture
def bucket(store: Store, films: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket with the films in it; the environment leads there."""
    for name, value in store.server.environment().items():
        monkeypatch.setenv(name, value)
    name = f"b{uuid.uuid4().hex[:12]}"
    boto3.session.Session().client("s3").create_bucket(Bucket=name)
    for path in films.iterdir():
        storage.upload(path, f"s3://{name}/films/{path.name}")
    return f"s3://{name}"


@pytest.fixture(scope="module")
def undisturbed(root: Path, films: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The bytes that a local run gives, without the list of inputs, which holds times there and ETags in a bucket."""
    folder = tmp_path_factory.mktemp("local")
    job = ShardJob(root, folder, str(films), str(folder / "data"))
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
        jobs.append(ShardJob(root, tmp_path, f"{bucket}/films", f"{bucket}/data", **variables))
        return jobs[-1]

    yield started
    for job in jobs:
        job.end()


def assert_complete(job: ShardJob, wanted: dict[str, str]) -> None:
    """It ended well, with the bytes of a local run, which read-only keys can verify, and no secret got out."""
    said = job.log.read_text()
    assert job.finish() == 0, said
    assert without_versions(tree(job.out)) == wanted
    stored = b"".join(storage.read_bytes(f"{job.out}/{name}") for name in storage.list_files(job.out))
    sessions = [path for path in job.log.parent.rglob("*") if path.is_file()]
    for secret in (SECRET, READERS_SECRET):
        assert secret not in said
        assert secret.encode() not in stored
        assert not [path for path in sessions if secret.encode() in path.read_bytes()]


def test_a_server_that_is_killed_and_comes_back_costs_only_time(
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
            if draw.random() < 0.7 and number > 0:  # the first of each method always
                return None
            place = draw.randrange(0, 60_000)
            cuts.append(method)
        if method == "PUT":
            return draw.choice((Fault(cut_request=place), Fault(lose_answer=True), Fault(status=503)))
        return Fault(cut_answer=place) if method == "GET" else Fault(status=500, code="InternalError")

    with fault_proxy(store.server.endpoint, cut) as proxy:
        job = run(AWS_ENDPOINT_URL=proxy.endpoint)
        job.finish()
    assert {"GET", "PUT"} <= set(cuts)
    assert_complete(job, undisturbed)


def test_keys_that_may_only_read_are_enough_to_verify_and_not_to_write(
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


def test_a_wrong_key_is_said_at_once(root: Path, bucket: str, run: Callable[..., ShardJob]) -> None:
    job = run(AWS_SECRET_ACCESS_KEY="wrong-Pk37")
    assert job.finish(60) == 2
    said = job.log.read_text()
    assert "wrong-Pk37" not in said
    assert "Traceback" not in said
    last = said.splitlines()[-1]
    assert last.startswith(f"error: {bucket}/films: S3 refused the credentials or they lack the permission")

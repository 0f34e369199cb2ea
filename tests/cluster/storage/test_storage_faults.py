"""A real S3 server with broken connections, overload or low bandwidth: a read is complete, or raises an error."""

import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.storage import api as storage
from cluster.storage import s3
from cluster.storage.errors import StorageError, UnreachableError
from tests.cluster.storage.fault_proxy import Fault

HEADER = 512
"""Size of a tar block in bytes: a tar cut off at a block boundary reads as a shorter tar, without an error."""


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_connections_cut_at_a_header_boundary_lose_no_sample(
    through: Callable[..., str], s3_bucket: str, tmp_path: Path
) -> None:
    data = os.urandom(HEADER * 4_000)
    storage.write_bytes(f"{s3_bucket}/shard.tar", data)
    cuts = (HEADER * 1_000, HEADER, 0, HEADER * 37)
    faults = {("GET", n): Fault(cut_answer=cut, forget_length=n % 2 == 0) for n, cut in enumerate(cuts)}
    bucket = through(faults)
    storage.download(f"{bucket}/shard.tar", tmp_path / "shard.tar")
    assert sha((tmp_path / "shard.tar").read_bytes()) == sha(data)
    assert storage.read_range(f"{bucket}/shard.tar", 1000, 5000) == data[1000:6000]
    assert storage.read_range(f"{bucket}/shard.tar", len(data) - 10, 5000) == data[-10:]


def test_a_response_that_always_ends_early_is_an_error_and_leaves_no_file(
    through: Callable[..., str], s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "READ_ATTEMPTS", 3)
    storage.write_bytes(f"{s3_bucket}/x", os.urandom(HEADER * 10))
    limit = {"left": HEADER * 4}

    def cut(method: str, path: str, n: int) -> Fault | None:
        if method != "GET":
            return None
        limit["left"], now = 0, limit["left"]
        return Fault(cut_answer=now, forget_length=True)

    bucket = through(cut)
    for read in (storage.read_bytes, lambda url: storage.download(url, tmp_path / "x")):
        with pytest.raises(UnreachableError, match=r"reading stopped at byte \d+ of 5120"):
            read(f"{bucket}/x")
    assert list(tmp_path.iterdir()) == []


def test_an_overloaded_server_is_asked_again_and_one_that_stays_so_is_named(
    through: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = {(method, 0): Fault(status=503) for method in ("PUT", "HEAD", "GET")}
    bucket = through(faults)
    storage.write_bytes(f"{bucket}/x", b"content")
    assert storage.read_bytes(f"{bucket}/x") == b"content"
    assert storage.list_files(bucket) == ["x"]
    monkeypatch.setenv("VDSM_S3_ATTEMPTS", "2")
    bucket = through(lambda method, path, n: Fault(status=503))
    for use in (storage.read_bytes, storage.size, storage.list_files, lambda url: storage.write_bytes(url, b"")):
        with pytest.raises(UnreachableError, match="overloaded"):
            use(f"{bucket}/x")


def test_a_listing_that_ends_early_is_retried(through: Callable[..., str], s3_bucket: str) -> None:
    names = [f"shard-{n:06}.tar" for n in range(30)]
    for name in names:
        storage.write_bytes(f"{s3_bucket}/{name}", b"")
    bucket = through({("GET", 0): Fault(cut_answer=700), ("GET", 1): Fault(cut_answer=0)})
    assert storage.list_files(bucket) == names
    bucket = through(lambda method, path, n: Fault(cut_answer=900, forget_length=True))
    with pytest.raises(StorageError):  # never a shorter list
        storage.list_files(bucket)


def test_a_slow_server_is_waited_for_and_a_silent_one_is_not(
    through: Callable[..., str], s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(200_000)
    storage.write_bytes(f"{s3_bucket}/x", data)
    monkeypatch.setenv("VDSM_S3_READ_TIMEOUT_S", "0.5")
    monkeypatch.setenv("VDSM_S3_ATTEMPTS", "1")
    bucket = through(
        lambda method, path, n: Fault(bytes_per_s=200_000)
    )  # one second in total, but never silent for long
    assert storage.read_bytes(f"{bucket}/x") == data
    bucket = through({("GET", 0): Fault(delay_s=1.5)})
    assert storage.read_bytes(f"{bucket}/x") == data
    bucket = through(lambda method, path, n: Fault(delay_s=1.5))
    with pytest.raises(UnreachableError, match="does not respond"):
        storage.size(f"{bucket}/x")


def test_a_broken_write_is_retried_or_leaves_the_old_content(
    through: Callable[..., str], s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write_bytes(f"{s3_bucket}/x", b"old")
    bucket = through({("PUT", 0): Fault(cut_request=1000), ("PUT", 1): Fault(lose_answer=True)})
    storage.write_bytes(f"{bucket}/x", b"n" * 300_000)
    assert storage.read_bytes(f"{bucket}/x") == b"n" * 300_000
    monkeypatch.setenv("VDSM_S3_ATTEMPTS", "2")
    (tmp_path / "large").write_bytes(b"l" * 20_000_000)
    bucket = through(lambda method, path, n: Fault(cut_request=1000) if method == "PUT" else None)
    for write in (
        lambda: storage.write_bytes(f"{bucket}/x", b"m" * 300_000),
        lambda: storage.upload(tmp_path / "large", f"{bucket}/x"),
    ):
        with pytest.raises(UnreachableError):
            write()
        assert storage.read_bytes(f"{bucket}/x") == b"n" * 300_000


@pytest.mark.parametrize("code", ["ExpiredToken", "RequestTimeTooSkewed", "AccessDenied"])
def test_refusals_are_distinguished_and_not_retried(
    through: Callable[..., str], s3_bucket: str, tmp_path: Path, code: str
) -> None:
    reasons = {
        "ExpiredToken": "credentials have expired",
        "RequestTimeTooSkewed": "clock",
        "AccessDenied": "permission",
    }
    storage.write_bytes(f"{s3_bucket}/x", b"content" * 100_000)
    requests: list[str] = []

    def refuse(method: str, path: str, n: int) -> Fault | None:
        requests.append(method)
        if method == "GET" and n == 0:
            return Fault(cut_answer=1000)  # the credentials expire in the middle of a read
        return Fault(status=400 if code == "ExpiredToken" else 403, code=code) if method != "HEAD" else None

    bucket = through(refuse)
    with pytest.raises(StorageError, match=reasons[code]) as caught:
        storage.download(f"{bucket}/x", tmp_path / "x")
    assert not isinstance(caught.value, UnreachableError)
    assert requests == ["HEAD", "GET", "GET"]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StorageError, match=reasons[code]):
        storage.write_bytes(f"{bucket}/x", b"")


@pytest.mark.parametrize("kind", ["local", pytest.param("s3", marks=pytest.mark.s3)])
def test_of_sixteen_writers_exactly_one_wins(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, trials: Callable[[int], int]
) -> None:
    base = str(tmp_path) if kind == "local" else str(request.getfixturevalue("s3_bucket"))
    for trial in range(trials(1)):
        url = storage.join(base, f"lock-{trial}")
        start = threading.Barrier(16)

        def race(writer: int, url: str = url, start: threading.Barrier = start) -> bool:
            start.wait()
            return storage.create(url, f"writer {writer}".encode())

        with ThreadPoolExecutor(16) as pool:
            won = list(pool.map(race, range(16)))
        assert won.count(True) == 1
        assert storage.read_bytes(url) == f"writer {won.index(True)}".encode()
    assert all(not name.startswith(".") for name in storage.list_files(base))


def test_a_winner_whose_response_is_lost_still_knows_that_it_won(through: Callable[..., str]) -> None:
    bucket = through({("PUT", 0): Fault(lose_answer=True)})
    assert storage.create(f"{bucket}/lock", b"same")
    assert not storage.create(f"{bucket}/lock", b"same")


def test_an_object_is_replaced_only_by_a_writer_that_knows_its_version(s3_bucket: str) -> None:
    url = f"{s3_bucket}/state"
    first = s3.write_if(url, b"1", None)
    assert first is not None
    assert s3.read_with_etag(url) == (b"1", first)
    second = s3.write_if(url, b"2", first)
    assert second is not None
    assert s3.write_if(url, b"3", first) is None
    assert s3.read_with_etag(url) == (b"2", second)
    assert s3.write_if(f"{s3_bucket}/none", b"1", first) is None

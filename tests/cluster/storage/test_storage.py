"""Local folders and a real S3 server behave alike, survive broken connections, and report user errors immediately."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage import s3
from cluster.storage.errors import MissingFileError, StorageError
from tests.cluster.storage.fault_proxy import Fault


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty folder or an empty bucket."""
    if request.param == "local":
        return str(tmp_path)
    return str(request.getfixturevalue("s3_bucket"))


def test_what_is_written_is_read(base: str) -> None:
    url = storage.join(base, "a", "b.bin")
    storage.write_bytes(url, b"first")
    storage.write_bytes(url, b"second one")
    assert storage.read_bytes(url) == b"second one"
    assert storage.size(url) == 10
    assert storage.exists(url)


def test_files_are_listed_relative_to_the_folder_and_sorted(base: str) -> None:
    for name in ("z", "sub/b", "sub/a", "subway"):
        storage.write_bytes(storage.join(base, name), b"")
    assert storage.list_files(base) == ["sub/a", "sub/b", "subway", "z"]
    assert storage.list_files(storage.join(base, "sub")) == ["a", "b"]


def test_a_missing_file_is_distinguished_from_other_errors(base: str) -> None:
    url = storage.join(base, "nothing")
    assert not storage.exists(url)
    for use in (storage.read_bytes, storage.size):
        with pytest.raises(MissingFileError, match="nothing: there is no such"):
            use(url)


def test_upload_and_download_copy_every_byte(base: str, tmp_path: Path) -> None:
    data = os.urandom(3_000_001)
    (tmp_path / "from").write_bytes(data)
    url = storage.join(base, "copy")
    storage.upload(tmp_path / "from", url)
    storage.download(url, tmp_path / "deep" / "to")
    assert (tmp_path / "deep" / "to").read_bytes() == data
    storage.delete(url)
    storage.delete(url)
    assert not storage.exists(url)


@pytest.mark.parametrize(
    ("base", "parts", "joined"),
    [
        ("a/b", ("c",), "a/b/c"),
        ("a/b/", ("c/", "/d"), "a/b/c/d"),
        ("/", ("c",), "/c"),
        ("s3://bucket", ("c", "d"), "s3://bucket/c/d"),
        ("s3://bucket/", ("c",), "s3://bucket/c"),
        ("a/", ("",), "a"),
    ],
)
def test_join(base: str, parts: tuple[str, ...], joined: str) -> None:
    assert storage.join(base, *parts) == joined


def test_an_unknown_scheme_is_rejected() -> None:
    with pytest.raises(UserError, match=r"ftp://b/x: ftp:// is not supported; give a local folder or s3://"):
        storage.read_bytes("ftp://b/x")


def test_a_missing_local_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nowhere: there is no such folder"):
        storage.list_files(str(tmp_path / "nowhere"))


def test_a_writer_killed_at_any_moment_leaves_the_old_content_or_the_new(tmp_path: Path) -> None:
    target = tmp_path / "file"
    code = (
        "import sys; from cluster.storage import api as storage\n"
        "n = 0\n"
        "while True:\n"
        "    n += 1\n"
        "    storage.write_bytes(sys.argv[1], bytes([n % 251]) * 2_000_000)\n"
    )
    root = Path(__file__).resolve().parents[3]
    for delay in (0.02, 0.05, 0.11):
        process = subprocess.Popen([sys.executable, "-c", code, str(target)], cwd=root)
        while not target.exists():
            time.sleep(0.01)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        data = target.read_bytes()
        assert len(data) == 2_000_000
        assert len(set(data)) == 1
        target.unlink()
    storage.remove_partial_files(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_read_resumes_where_the_connection_broke(through: Callable[..., str], s3_bucket: str, tmp_path: Path) -> None:
    data = os.urandom(9_000_000)
    storage.write_bytes(f"{s3_bucket}/large", data)
    breaks = (3_000_000, "in the header", 2_000_000, 0, 1_000_000)
    faults = {
        ("GET", n): Fault(cut_answer=at) if isinstance(at, int) else Fault(cut_header=True)
        for n, at in enumerate(breaks)
    }
    storage.download(f"{through(faults)}/large", tmp_path / "got")
    assert hashlib.sha256((tmp_path / "got").read_bytes()).digest() == hashlib.sha256(data).digest()


def test_an_object_replaced_while_it_is_read_is_never_spliced(
    s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{s3_bucket}/large"
    storage.write_bytes(url, b"a" * 4_000_000)
    stream = s3._stream

    def replaced_midway(url: str, offset: int, stop: int, etag: str) -> Iterator[bytes]:
        chunks = stream(url, offset, stop, etag)
        yield next(chunks)
        storage.write_bytes(url, b"b" * 4_000_000)
        raise ConnectionError

    monkeypatch.setattr(s3, "_stream", lambda *a: replaced_midway(*a) if a[1] == 0 else stream(*a))
    with pytest.raises(StorageError, match="replaced while it was read"):
        storage.download(url, tmp_path / "got")
    assert list(tmp_path.glob(".*")) == list(tmp_path.glob("got")) == []


def test_a_missing_bucket_is_named(s3_bucket: str) -> None:
    for use in (storage.read_bytes, storage.size, storage.list_files, lambda url: storage.write_bytes(url, b"")):
        with pytest.raises(StorageError, match="there is no bucket absent-bucket; create it"):
            use("s3://absent-bucket/x")


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_a_wrong_key_is_refused_without_retries(s3_bucket: str, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    import botocore.endpoint

    storage.write_bytes(f"{s3_bucket}/x", b"")
    monkeypatch.setenv(name, "wrong-Pk37")
    sent = 0
    send = botocore.endpoint.Endpoint._send

    def counted(self: object, request: object) -> object:
        nonlocal sent
        sent += 1
        return send(self, request)

    monkeypatch.setattr(botocore.endpoint.Endpoint, "_send", counted)
    for use in (storage.read_bytes, storage.size, storage.list_files, lambda url: storage.write_bytes(url, b"")):
        sent = 0
        with pytest.raises(StorageError, match="refused the credentials") as caught:
            use(f"{s3_bucket}/x")
        assert sent == 1
        assert "wrong-Pk37" not in str(caught.value)


def test_no_server_and_no_credentials_are_named(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as changed:
        changed.delenv("AWS_ACCESS_KEY_ID")
        changed.delenv("AWS_SECRET_ACCESS_KEY")
        changed.setenv("AWS_EC2_METADATA_DISABLED", "true")
        changed.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        with pytest.raises(StorageError, match="no AWS credentials; set AWS_ACCESS_KEY_ID"):
            storage.read_bytes(f"{s3_bucket}/x")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(StorageError, match="does not respond; check AWS_ENDPOINT_URL"):
            storage.read_bytes(f"{s3_bucket}/x")

"""The development S3 server: what it serves, and to whom."""

import contextlib
import json
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.development import s3_server
from cluster.development.s3_server import S3Server
from tests.listeners import listeners

pytestmark = pytest.mark.s3

OBJECT = b"mine" * 1000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server") / "s3"


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[S3Server]:
    """Return a server with one object, data/a/b."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder.parent))  # of the server's own logs
        with s3_server.serve(folder, access_key="key", secret_key="secret-Zq81") as running:
            client = running.client()
            client.create_bucket(Bucket="data")
            client.put_object(Bucket="data", Key="a/b", Body=OBJECT)
            yield running


def test_the_number_of_buckets_does_not_depend_on_free_disk_space(folder: Path, server: S3Server) -> None:
    context = ssl.create_default_context(cafile=str(folder / "tls" / "certificate.pem"))
    context.load_cert_chain(folder / "tls" / "certificate.pem", folder / "tls" / "key.pem")
    _, master, *_ = json.loads((folder / "ports.json").read_text())
    with urllib.request.urlopen(f"https://127.0.0.1:{master}/dir/status", timeout=10, context=context) as answer:
        topology = json.load(answer)["Topology"]
    assert topology["Max"] == s3_server.MAX_VOLUMES


def test_it_listens_on_loopback_only(server: S3Server) -> None:
    found = listeners([server.pid])
    assert int(server.endpoint.rpartition(":")[2]) in {one.port for one in found}
    assert {one.address for one in found} == {"127.0.0.1"}


REQUESTS = [
    "GET /data/a/b", "PUT /data/a/b", "DELETE /data/a/b", "GET /data", "GET /",  # S3
    "GET /buckets/data/a/b", "PUT /buckets/data/a/b", "POST /buckets/data/new", "DELETE /buckets/data/a/b",  # filer
    "GET /dir/status", "GET /dir/assign", "GET /col/delete?collection=data", "POST /submit", "GET /vol/vacuum",
    "GET /1,01637037d6", "PUT /1,01637037d6", "DELETE /1,01637037d6", "GET /status",  # volume
    "GET /?Action=ListUsers&Version=2010-05-08", "POST /?Action=CreateUser&UserName=me&Version=2010-05-08",
]  # fmt: skip


def test_no_port_answers_without_credentials(server: S3Server) -> None:
    unverified = ssl._create_unverified_context()
    ports = [one.port for one in listeners([server.pid])]
    assert len(ports) >= 8
    answered = [
        (port, scheme, request)
        for port in ports
        for scheme in ("http", "https")
        for request in REQUESTS
        if answers(f"{scheme}://127.0.0.1:{port}", *request.split(), unverified)
    ]
    s3 = int(server.endpoint.rpartition(":")[2])
    assert set(answered) <= {(s3, "http", "GET /status")}  # whether it runs
    assert not any(map(speaks_plain_grpc, ports))
    assert server.client().get_object(Bucket="data", Key="a/b")["Body"].read() == OBJECT


def answers(url: str, method: str, path: str, context: ssl.SSLContext) -> bool:
    """Return whether a server does what a request asks for."""
    request = urllib.request.Request(url + path, b"evil" if method in ("PUT", "POST") else None, method=method)
    https: dict[str, Any] = {"context": context} if url.startswith("https") else {}
    try:
        with urllib.request.urlopen(request, timeout=5, **https):
            return True
    except urllib.error.HTTPError as error:
        return error.code not in (400, 401, 403, 404, 405)
    except Exception:  # of TLS, of the connection, of a protocol that is not HTTP
        return False


def speaks_plain_grpc(port: int) -> bool:
    """Return whether a port answers the beginning of an HTTP/2 connection without TLS, as gRPC does."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.settimeout(2)
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
        received = connection.recv(9)
        return len(received) == 9 and received[3] == 4  # a frame with settings
    return False


def test_nobody_else_can_read_its_files_and_its_logs_are_in_its_folder(folder: Path, server: S3Server) -> None:
    assert folder.stat().st_mode & 0o777 == 0o700
    files = [path for path in (folder / "objects").rglob("*") if path.is_file()]
    assert any(path.suffix == ".dat" for path in files)
    # The server sets the mode of .vif files itself, which describe a volume and hold no objects.
    assert [path for path in files if path.stat().st_mode & 0o077 and path.suffix != ".vif"] == []
    assert (folder / "tls" / "key.pem").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]

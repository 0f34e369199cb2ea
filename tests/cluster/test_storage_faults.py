"""A real S3 server that is killed, cut off, overloaded or slow: what is read is whole, or there is an error."""

import datetime
import hashlib
import ipaddress
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster import s3, storage
from cluster.s3_server import S3Server
from tests.cluster.fault_proxy import Fault, fault_proxy

HEADER = 512
"""A tar is made of blocks of so many bytes: one that ends on a boundary reads as a shorter tar, without an error."""
Faults = dict[tuple[str, int], Fault]


@pytest.fixture
def through(s3_server: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """`through({("GET", 0): Fault(...)})`: from now on, the n-th request of a method goes wrong. Gives the bucket."""
    import contextlib

    with contextlib.ExitStack() as stack:

        def use(faults: Faults | Callable[[str, str, int], Fault | None], tls: ssl.SSLContext | None = None) -> str:
            choose = faults if callable(faults) else lambda method, path, n: faults.get((method, n))
            proxy = stack.enter_context(fault_proxy(s3_server.endpoint, choose, tls))
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
            return s3_bucket

        yield use


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


def test_an_answer_that_always_ends_early_is_an_error_and_leaves_no_file(
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
        with pytest.raises(storage.Unreachable, match=r"reading stopped at byte \d+ of 5120"):
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
        with pytest.raises(storage.Unreachable, match="overloaded"):
            use(f"{bucket}/x")


def test_a_listing_that_ends_early_is_asked_again(through: Callable[..., str], s3_bucket: str) -> None:
    names = [f"shard-{n:06}.tar" for n in range(30)]
    for name in names:
        storage.write_bytes(f"{s3_bucket}/{name}", b"")
    bucket = through({("GET", 0): Fault(cut_answer=700), ("GET", 1): Fault(cut_answer=0)})
    assert storage.list_files(bucket) == names
    bucket = through(lambda method, path, n: Fault(cut_answer=900, forget_length=True))
    with pytest.raises(storage.StorageError):  # never a shorter list
        storage.list_files(bucket)


def test_a_slow_server_is_waited_for_and_a_silent_one_is_not(
    through: Callable[..., str], s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(200_000)
    storage.write_bytes(f"{s3_bucket}/x", data)
    monkeypatch.setenv("VDSM_S3_READ_TIMEOUT_S", "0.5")
    monkeypatch.setenv("VDSM_S3_ATTEMPTS", "1")
    bucket = through(lambda method, path, n: Fault(bytes_per_s=200_000))  # a second in all, but never silent for long
    assert storage.read_bytes(f"{bucket}/x") == data
    bucket = through({("GET", 0): Fault(delay_s=1.5)})
    assert storage.read_bytes(f"{bucket}/x") == data
    bucket = through(lambda method, path, n: Fault(delay_s=1.5))
    with pytest.raises(storage.Unreachable, match="does not answer"):
        storage.size(f"{bucket}/x")


def test_a_write_cut_off_is_made_again_or_leaves_what_was_there(
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
        with pytest.raises(storage.Unreachable):
            write()
        assert storage.read_bytes(f"{bucket}/x") == b"n" * 300_000


@pytest.mark.parametrize("code", ["ExpiredToken", "RequestTimeTooSkewed", "AccessDenied"])
def test_refusals_are_told_apart_and_not_repeated(
    through: Callable[..., str], s3_bucket: str, tmp_path: Path, code: str
) -> None:
    words = {"ExpiredToken": "credentials have expired", "RequestTimeTooSkewed": "clock", "AccessDenied": "permission"}
    storage.write_bytes(f"{s3_bucket}/x", b"content" * 100_000)
    asked: list[str] = []

    def refuse(method: str, path: str, n: int) -> Fault | None:
        asked.append(method)
        if method == "GET" and n == 0:
            return Fault(cut_answer=1000)  # the credentials expire in the middle of a read
        return Fault(status=400 if code == "ExpiredToken" else 403, code=code) if method != "HEAD" else None

    bucket = through(refuse)
    with pytest.raises(storage.StorageError, match=words[code]) as caught:
        storage.download(f"{bucket}/x", tmp_path / "x")
    assert not isinstance(caught.value, storage.Unreachable)
    assert asked == ["HEAD", "GET", "GET"]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(storage.StorageError, match=words[code]):
        storage.write_bytes(f"{bucket}/x", b"")


@pytest.mark.parametrize("place", ["local", "s3"])
def test_of_sixteen_writers_exactly_one_wins(
    place: str, tmp_path: Path, request: pytest.FixtureRequest, trials: Callable[[int], int]
) -> None:
    base = str(tmp_path) if place == "local" else str(request.getfixturevalue("s3_bucket"))
    for trial in range(trials(2)):
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


def test_a_winner_whose_answer_is_lost_still_knows_that_it_won(through: Callable[..., str]) -> None:
    bucket = through({("PUT", 0): Fault(lose_answer=True)})
    assert storage.create(f"{bucket}/lock", b"same")
    assert not storage.create(f"{bucket}/lock", b"same")


def test_an_object_is_replaced_only_by_who_knows_its_version(s3_bucket: str) -> None:
    url = f"{s3_bucket}/state"
    first = s3.write_if(url, b"1", None)
    assert first is not None
    assert s3.read_with_etag(url) == (b"1", first)
    second = s3.write_if(url, b"2", first)
    assert second is not None
    assert s3.write_if(url, b"3", first) is None
    assert s3.read_with_etag(url) == (b"2", second)
    assert s3.write_if(f"{s3_bucket}/none", b"1", first) is None


@pytest.fixture
def mortal_server(tmp_path: Path) -> Iterator[Callable[[str], "Mortal"]]:
    servers: list[Mortal] = []

    def make(name: str) -> "Mortal":
        servers.append(Mortal(tmp_path / name))
        return servers[-1]

    yield make
    for server in servers:
        server.kill()


class Mortal:
    """An S3 server in a process of its own, which a test kills and starts again on the same ports and objects."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.command = folder, [""]
        self.start()

    def start(self) -> None:
        """Start it, the first time by way of `serve`, which chooses ports; later with the same words."""
        if self.command == [""]:
            code = (
                "import os, subprocess, sys, time\n"
                "from pathlib import Path\n"
                "from cluster import s3_server\n"
                "with s3_server.serve(Path(sys.argv[1]), access_key='k', secret_key='s') as server:\n"
                "    print(server.endpoint, flush=True)\n"
                "    time.sleep(600)\n"
            )
            root = Path(__file__).resolve().parents[2]
            words = [sys.executable, "-c", code, str(self.folder)]
            self.host = subprocess.Popen(words, cwd=root, stdout=subprocess.PIPE, text=True)
            assert self.host.stdout is not None
            self.endpoint = self.host.stdout.readline().strip()
            assert self.endpoint
            children = Path(f"/proc/{self.host.pid}/task/{self.host.pid}/children").read_text().split()
            self.pid = int(children[0])
            self.command = Path(f"/proc/{self.pid}/cmdline").read_text().split("\0")[:-1]
            return
        self.process = subprocess.Popen(
            self.command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.pid = self.process.pid

    def stop(self) -> None:
        """End it at once, as a lost machine would."""
        os.kill(self.pid, signal.SIGKILL)
        if hasattr(self, "process"):
            self.process.wait()

    def kill(self) -> None:
        self.host.kill()
        self.host.wait()
        for process in [self.process] if hasattr(self, "process") else []:
            process.kill()
            process.wait()


def test_a_server_killed_and_restarted_costs_nothing_but_time(
    mortal_server: Callable[[str], Mortal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    server = mortal_server("s3")
    own = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**own, "AWS_ENDPOINT_URL": server.endpoint}.items():
        monkeypatch.setenv(name, value)
    boto3.session.Session().client("s3").create_bucket(Bucket="store")
    data = os.urandom(24_000_000)
    storage.write_bytes("s3://store/read", data)
    storage.write_bytes("s3://store/written", b"old")
    (tmp_path / "new").write_bytes(data[::-1])

    def killed_during(work: Callable[[], None], method: str) -> int:
        """Kill the server while `work` is in the middle of it, start it again two seconds later. Requests it took."""
        dead = threading.Event()

        def kill(asked: str, path: str, n: int) -> Fault | None:
            if asked == method and n == 0 and not dead.is_set():
                threading.Timer(0.3, lambda: (server.stop(), dead.set())).start()
                return Fault(bytes_per_s=20_000_000, delay_s=0.0 if method == "GET" else 0.5)
            return None

        with fault_proxy(server.endpoint, kill) as proxy:
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
            revive = threading.Thread(target=lambda: (dead.wait(30), time.sleep(2), server.start()))
            revive.start()
            storage.patiently(work, 60)
            revive.join()
            asked = proxy.count(method)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        return asked

    assert killed_during(lambda: storage.download("s3://store/read", tmp_path / "got"), "GET") >= 2
    assert sha((tmp_path / "got").read_bytes()) == sha(data)
    parts = 3  # of 8 MiB
    assert killed_during(lambda: storage.upload(tmp_path / "new", "s3://store/written"), "PUT") > parts
    assert storage.patiently(lambda: sha(storage.read_bytes("s3://store/written")), 60) == sha(data[::-1])


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for localhost that nobody has signed but itself, and a server's context with it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*paths)
    return paths[0], context


def test_tls_trusts_the_named_authority_and_no_other(
    through: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted, context = certificate(tmp_path)
    bucket = through({}, context)
    with pytest.raises(storage.StorageError, match="certificate is not trusted; set AWS_CA_BUNDLE"):
        storage.write_bytes(f"{bucket}/x", b"content")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(trusted))
    storage.write_bytes(f"{bucket}/x", b"content" * 1000)
    assert storage.read_bytes(f"{bucket}/x") == b"content" * 1000


def test_settings_reach_the_requests(
    through: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster.s3_client import client

    monkeypatch.setenv("VDSM_S3_ENCRYPTION", "AES256")
    monkeypatch.setenv("VDSM_S3_REQUESTER_PAYS", "1")
    bucket = through({})
    sent: dict[str, dict[str, str]] = {}

    def note(model: object, params: dict[str, dict[str, str]], **_: object) -> None:
        sent[str(model).partition("=")[2].strip(")")] = dict(params["headers"])

    events = client().meta.events
    events.register("before-call.s3", note)
    (tmp_path / "large").write_bytes(b"l" * 9_000_000)
    try:
        storage.write_bytes(f"{bucket}/x", b"1")
        assert storage.create(f"{bucket}/y", b"1")
        storage.upload(tmp_path / "large", f"{bucket}/z")
        storage.read_bytes(f"{bucket}/x")
        storage.list_files(bucket)
    finally:
        events.unregister("before-call.s3", note)
    for operation in ("PutObject", "CreateMultipartUpload"):
        assert sent[operation]["x-amz-server-side-encryption"] == "AES256"
    for operation in ("PutObject", "GetObject", "HeadObject", "ListObjectsV2", "UploadPart"):
        assert sent[operation]["x-amz-request-payer"] == "requester"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("VDSM_S3_READ_TIMEOUT_S", "soon", "'soon'; it must be a positive number"),
        ("VDSM_S3_ATTEMPTS", "0", "'0'; it must be a positive whole number"),
        ("VDSM_S3_REQUESTER_PAYS", "yes", "'yes'; it must be 0 or 1"),
        ("VDSM_S3_ENCRYPTION", "DES", "'DES'; it must be empty or AES256 or aws:kms"),
        ("VDSM_S3_KMS_KEY_ID", "k", "needs VDSM_S3_ENCRYPTION=aws:kms"),
        ("VDSM_S3_TIMEOUT", "3", "is not a setting; known are VDSM_S3_CONNECT_TIMEOUT_S"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(storage.StorageError, match=name) as caught:
        storage.read_bytes("s3://b/x")
    assert words in str(caught.value)

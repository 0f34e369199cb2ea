"""gs:// and az:// by obstore: the same guarantees as S3.

The backend runs against the S3 server of the tests through obstore's own client for S3, and against Azurite, an
emulator of Azure Blob Storage, where its program is found (`npm install azurite`; `$AZURITE_BLOB`, or in PATH).
There is no emulator of Google's among the packages; what is Google's alone, generations, is not tested.
"""

import base64
import hashlib
import hmac
import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest

from cluster.storage import api as storage
from cluster.storage import cloud, cloud_client
from cluster.storage.errors import MissingFileError, StorageError
from cluster.storage.fence import Fence, fenced
from cluster.storage.lock import LostLockError, run_lock
from cluster.storage.lock_owner import lock_content
from preprocessing.dataset.reader import ClipDataset

obstore = pytest.importorskip("obstore", reason="pip install 'vdsm-pipeline[cloud]'")
AZURITE = os.environ.get("AZURITE_BLOB") or shutil.which("azurite-blob")
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # Azurite's, published


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the endpoint of an emulator."""
    if AZURITE is None:
        pytest.skip("Azurite is not installed; npm install azurite, and set $AZURITE_BLOB to its azurite-blob")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("azurite")
    command = [
        AZURITE,
        "--blobHost",
        "127.0.0.1",
        "--blobPort",
        str(port),
        "--location",
        str(folder),
        "--skipApiVersionCheck",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        for line in server.stdout:
            if "successfully listens" in line:
                break
        yield f"http://127.0.0.1:{port}/devstoreaccount1"
        server.kill()


def _s3_through_obstore(monkeypatch: pytest.MonkeyPatch, bucket: str) -> str:
    from obstore.store import S3Store

    def make(name: str) -> Any:
        options = cloud_client.client_options()
        options["client_options"]["allow_http"] = True
        return S3Store(
            name, endpoint=os.environ["AWS_ENDPOINT_URL"], region="us-east-1",
            access_key_id=os.environ["AWS_ACCESS_KEY_ID"], secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
            virtual_hosted_style_request=False, **options,
        )  # fmt: skip

    cloud_client._store.cache_clear()
    monkeypatch.setitem(cloud_client.MAKERS, "gs", make)
    return bucket.replace("s3://", "gs://")


def _container(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> str:
    variables = {"ACCOUNT_NAME": "devstoreaccount1", "ACCOUNT_KEY": KEY, "ENDPOINT": endpoint}
    for name, value in variables.items():
        monkeypatch.setenv(f"AZURE_STORAGE_{name}", value)
    monkeypatch.setenv("AZURE_ALLOW_HTTP", "true")  # the emulator's own mode has a fixed port
    cloud_client._store.cache_clear()
    name = f"test-{uuid.uuid4().hex[:12]}"
    create_container(endpoint, name)
    return f"az://{name}"


def create_container(endpoint: str, name: str) -> None:
    """Create a container by a request that is signed as Azure describes for shared keys."""
    date, version = formatdate(usegmt=True), "2021-08-06"
    headers = f"x-ms-date:{date}\nx-ms-version:{version}\n"
    text = f"PUT\n\n\n\n\n\n\n\n\n\n\n\n{headers}/devstoreaccount1/devstoreaccount1/{name}\nrestype:container"
    digest = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
    authorization = f"SharedKey devstoreaccount1:{base64.b64encode(digest).decode()}"
    urlopen(
        Request(
            f"{endpoint}/{name}?restype=container", method="PUT", data=b"",
            headers={"x-ms-date": date, "x-ms-version": version, "Authorization": authorization, "Content-Type": ""},
        )
    ).close()  # fmt: skip


@pytest.fixture(params=[pytest.param("s3", marks=pytest.mark.s3), "azurite"])
def base(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the URL of an empty bucket or container."""
    if request.param == "s3":
        yield _s3_through_obstore(monkeypatch, request.getfixturevalue("s3_bucket"))
    else:
        yield _container(monkeypatch, request.getfixturevalue("azurite"))
    cloud_client._store.cache_clear()


def test_files_are_written_read_listed_and_deleted(base: str, tmp_path: Path) -> None:
    for name in ("z", "sub/b c", "sub/a#1", "subway"):
        storage.write_bytes(storage.join(base, name), name.encode())
    assert storage.list_files(base) == ["sub/a#1", "sub/b c", "subway", "z"]
    assert storage.list_files(storage.join(base, "sub")) == ["a#1", "b c"]
    storage.write_bytes(f"{base}/z", b"second one")
    assert storage.read_bytes(f"{base}/z") == b"second one"
    assert storage.read_range(f"{base}/z", 7, 100) == b"one"
    data = os.urandom(20_000_001)  # more than a part of an upload
    (tmp_path / "from").write_bytes(data)
    storage.upload(tmp_path / "from", f"{base}/large")
    storage.download(f"{base}/large", tmp_path / "deep" / "to")
    assert (tmp_path / "deep" / "to").read_bytes() == data
    storage.write_bytes(f"{base}/empty", b"")
    assert storage.read_bytes(f"{base}/empty") == b""
    for _ in range(2):
        storage.delete(f"{base}/z")
    assert not storage.exists(f"{base}/z")
    with pytest.raises(MissingFileError, match="z: there is no such object"):
        storage.read_bytes(f"{base}/z")
    bucket = base.partition("://")[2]
    with pytest.raises(StorageError, match="there is no bucket missing-bucket") as missing:
        storage.read_bytes(f"{base.replace(bucket, 'missing-bucket')}/z")
    assert not isinstance(missing.value, MissingFileError)


def test_of_sixteen_writers_one_creates_and_only_who_knows_the_version_replaces(base: str) -> None:
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda number: storage.create(f"{base}/new", str(number).encode()), range(16)))
    assert won.count(True) == 1
    assert storage.read_bytes(f"{base}/new") == str(won.index(True)).encode()
    content, first = cloud.read_with_etag(f"{base}/new")
    second = cloud.write_if(f"{base}/new", b"second", first)
    assert second not in (None, first)
    assert cloud.write_if(f"{base}/new", b"late", first) is None
    assert cloud.write_if(f"{base}/none", b"late", first) is None
    assert content != storage.read_bytes(f"{base}/new") == b"second"


def test_a_put_whose_response_was_lost_is_known_as_ones_own(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put = cloud._put

    def twice(*args: Any) -> Any:
        put(*args)
        return put(*args)

    monkeypatch.setattr(cloud, "_put", twice)
    assert storage.create(f"{base}/mine", b"1")


def test_two_versions_are_never_spliced(base: str, tmp_path: Path) -> None:
    old, new = b"o" * 100, b"n" * 100
    storage.write_bytes(f"{base}/x", old)
    _, version = cloud.head(f"{base}/x")
    storage.write_bytes(f"{base}/x", new)
    with (tmp_path / "copy").open("wb") as file, pytest.raises(cloud.ReplacedError):
        cloud._copy(f"{base}/x", file, 10, 100, version)
    assert (tmp_path / "copy").read_bytes() == b""


def test_behind_a_fence_nothing_is_written_over_a_version_that_came_after_the_check(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, lost, other = f"{base}/run/file", False, b""

    def check() -> None:
        if lost:
            raise LostLockError("lost")

    real = cloud._put

    def paused(*args: Any) -> Any:
        """Another process takes over between the check and the PUT."""
        nonlocal lost
        lost = True
        monkeypatch.setattr(cloud, "_put", real)
        real(url, other, "overwrite")
        return real(*args)

    storage.write_bytes(url, b"first")
    (tmp_path / "file").write_bytes(b"late")
    with fenced(Fence(f"{base}/run", check)):
        storage.write_bytes(url, b"second")
        for write in (lambda: storage.write_bytes(url, b"late"), lambda: storage.upload(tmp_path / "file", url)):
            lost, other = False, uuid.uuid4().bytes
            monkeypatch.setattr(cloud, "_put", paused)
            with pytest.raises(LostLockError):
                write()
            assert storage.read_bytes(url) == other
        for write in (lambda: storage.delete(url), lambda: storage.create(f"{base}/run/new", b"")):
            with pytest.raises(LostLockError):
                write()


def test_a_run_is_locked_and_lost(base: str) -> None:
    with run_lock(f"{base}/run", renewal_s=1000):
        storage.write_bytes(f"{base}/run/a", b"1")
        storage.write_bytes(f"{base}/run/.lock", lock_content())
        with pytest.raises(LostLockError):
            storage.write_bytes(f"{base}/run/a", b"2")
    assert storage.read_bytes(f"{base}/run/a") == b"1"


def test_a_dataset_is_read_from_it(base: str, small_figures: Path) -> None:
    for path in small_figures.rglob("*"):
        if path.is_file():
            storage.upload(path, storage.join(base, "data", path.relative_to(small_figures).as_posix()))
    here, there = ClipDataset(str(small_figures), "test"), ClipDataset(f"{base}/data", "test")
    assert there.keys == here.keys
    assert all(np.array_equal(here.frames(index), there.frames(index)) for index in range(len(here)))


def test_wrong_keys_and_no_library_are_named(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_ACCOUNT_KEY"):
        monkeypatch.setenv(name, KEY[::-1].replace("=", "A"))
    cloud_client._store.cache_clear()
    with pytest.raises(StorageError, match="refused the credentials, or there are none; set ") as refused:
        storage.write_bytes(f"{base}/x", b"")
    assert KEY[::-1][:20] not in str(refused.value)
    cloud_client._store.cache_clear()
    monkeypatch.setitem(cloud_client.MAKERS, base[:2], lambda name: __import__("no_such_module"))
    with pytest.raises(StorageError, match=r"needs obstore; pip install 'vdsm-pipeline\[cloud\]'"):
        storage.read_bytes(f"{base}/x")

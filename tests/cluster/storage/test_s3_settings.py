"""S3 settings that a cluster may need: private TLS certificates, encryption, requester pays; errors in settings."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.development.mutual_tls import make_certificate
from cluster.development.s3_server import S3Server
from cluster.storage import api as storage
from cluster.storage.errors import StorageError


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Return a self-signed certificate for loopback, and a server context that uses it."""
    paths = folder / "certificate.pem", folder / "key.pem"
    for path, content in zip(paths, make_certificate(), strict=True):
        path.write_bytes(content)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*paths)
    return paths[0], context


def test_tls_trusts_the_named_authority_and_no_other(
    through: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted, context = certificate(tmp_path)
    bucket = through({}, context)
    with pytest.raises(StorageError, match="certificate is not trusted; set AWS_CA_BUNDLE"):
        storage.write_bytes(f"{bucket}/x", b"content")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(trusted))
    storage.write_bytes(f"{bucket}/x", b"content" * 1000)
    assert storage.read_bytes(f"{bucket}/x") == b"content" * 1000


def test_settings_reach_the_requests(
    through: Callable[..., str], s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster.storage.s3_client import client

    monkeypatch.setenv("VDSM_S3_ENCRYPTION", "AES256")
    monkeypatch.setenv("VDSM_S3_REQUESTER_PAYS", "1")
    bucket = through({})
    sent: dict[str, dict[str, str]] = {}

    def place(key: str) -> dict[str, str]:
        return {"Bucket": bucket.removeprefix("s3://"), "Key": key}

    def note(model: object, params: dict[str, dict[str, str]], **_: object) -> None:
        sent[str(model).partition("=")[2].strip(")")] = dict(params["headers"])

    events = client().meta.events
    events.register("before-call.s3", note)
    (tmp_path / "large").write_bytes(b"l" * 9_000_000)
    try:
        storage.write_bytes(f"{bucket}/x", b"1")
        assert storage.create(f"{bucket}/y", b"1")
        storage.upload(tmp_path / "large", f"{bucket}/z")
        # The server reads an encrypted object completely or not at all, see docs/operations.md; our reads name a range.
        assert s3_server.client().get_object(**place("x"))["Body"].read() == b"1"
        s3_server.client().put_object(**place("plain"), Body=b"2")
        assert storage.read_bytes(f"{bucket}/plain") == b"2"
        storage.list_files(bucket)
    finally:
        events.unregister("before-call.s3", note)
    for operation in ("PutObject", "CreateMultipartUpload"):
        assert sent[operation]["x-amz-server-side-encryption"] == "AES256"
    for operation in ("PutObject", "GetObject", "HeadObject", "ListObjectsV2", "UploadPart"):
        assert sent[operation]["x-amz-request-payer"] == "requester"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("VDSM_S3_READ_TIMEOUT_S", "soon", "'soon'; it must be a positive number"),
        ("VDSM_S3_ATTEMPTS", "0", "'0'; it must be a positive whole number"),
        ("VDSM_S3_REQUESTER_PAYS", "yes", "'yes'; it must be 0 or 1"),
        ("VDSM_S3_ENCRYPTION", "DES", "'DES'; it must be empty or AES256 or aws:kms"),
        ("VDSM_S3_KMS_KEY_ID", "k", "needs VDSM_S3_ENCRYPTION=aws:kms"),
        ("VDSM_S3_TIMEOUT", "3", "is not a setting; valid names are VDSM_S3_CONNECT_TIMEOUT_S"),
    ],
)
def test_an_invalid_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StorageError, match=name) as caught:
        storage.read_bytes("s3://b/x")
    assert message in str(caught.value)

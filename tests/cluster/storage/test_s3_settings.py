"""S3 settings that a cluster may need: private TLS certificates, encryption, requester pays; errors in settings."""

import contextlib
import datetime
import ipaddress
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.storage import api as storage
from cluster.storage.errors import StorageError, UnreachableError


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Return a self-signed certificate for localhost, and a server context that uses it."""
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
    with pytest.raises(StorageError, match="certificate is not trusted; set AWS_CA_BUNDLE"):
        storage.write_bytes(f"{bucket}/x", b"content")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(trusted))
    storage.write_bytes(f"{bucket}/x", b"content" * 1000)
    assert storage.read_bytes(f"{bucket}/x") == b"content" * 1000


def test_settings_reach_the_requests(
    through: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster.storage.s3_client import client

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
        # The development server stores encrypted objects, but cannot read them while its internal ports use TLS.
        with contextlib.suppress(UnreachableError):
            storage.read_bytes(f"{bucket}/x")
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

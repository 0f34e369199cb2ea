"""Mutual TLS between the parts of the S3 server, which otherwise take requests of anyone who reaches their ports."""

import datetime
import ipaddress
import os
from pathlib import Path

from cluster.errors import UserError
from cluster.extras import install

_GRPC = ("CLIENT", "MASTER", "VOLUME", "FILER", "S3", "ADMIN", "WORKER", "MSG_BROKER", "MSG_AGENT", "MQ")
_HTTPS = ("CLIENT", "MASTER", "VOLUME", "FILER", "ADMIN")
LIFETIME = datetime.timedelta(days=3650)


def mutual_tls(folder: Path) -> dict[str, str]:
    """Write a new key and its certificate to `folder`, and return the variables by which every part requires it.

    Raises:
        UserError: the library that makes certificates is not installed.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    for path, data in zip((certificate, key), make_certificate()):
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
    # Each part is a server and a client of the others, and accepts this one certificate only.
    variables = {"WEED_GRPC_CA": str(certificate), "WEED_HTTPS_CLIENT_ENABLED": "true"}
    for kind, parts in (("GRPC", _GRPC), ("HTTPS", _HTTPS)):
        for part in parts:
            variables |= {f"WEED_{kind}_{part}_CERT": str(certificate), f"WEED_{kind}_{part}_KEY": str(key)}
    return variables | {f"WEED_HTTPS_{part}_CA": str(certificate) for part in _HTTPS}


def make_certificate() -> tuple[bytes, bytes]:
    """Return a self-signed certificate for this machine's loopback address, and its key, both as PEM.

    Raises:
        UserError: the library that makes certificates is not installed.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        raise UserError(f"the S3 server needs `cryptography`; {install('s3-server')}") from None
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "vdsm s3")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    return certificate.public_bytes(encoding), key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)

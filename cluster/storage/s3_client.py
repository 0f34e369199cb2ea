"""S3 settings from the environment, which every process of a job shares, and the client that uses them.

Endpoint, region, credentials and private certificate authorities are configured as for any AWS program:
AWS_ENDPOINT_URL, AWS_DEFAULT_REGION, AWS_PROFILE, AWS_CA_BUNDLE and so on. Keys come from the environment, ~/.aws or
the role of the machine, which boto3 renews automatically; they are never logged or stored. Settings without an AWS
variable are defined here. Their variables are VDSM_S3_ and the field name in capitals: VDSM_S3_READ_TIMEOUT_S=60.
"""

import dataclasses
import functools
import os
from typing import Any, Literal, get_args

from cluster.extras import install
from cluster.storage.errors import StorageError
from cluster.storage.fence import check_write

PREFIX = "VDSM_S3_"
Encryption = Literal["", "AES256", "aws:kms"]
Addressing = Literal["auto", "path", "virtual"]
_OF_AWS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "AWS_CA_BUNDLE",
)


@dataclasses.dataclass(frozen=True)
class S3Settings:
    """Settings that the S3 service of a cluster may require."""

    connect_timeout_s: float = 5.0
    """Timeout for establishing a connection, in seconds."""
    read_timeout_s: float = 30.0
    """Timeout for each read of a response, in seconds."""
    attempts: int = 4
    """Total attempts per request if the server is overloaded (429, 5xx) or the connection breaks."""
    requester_pays: bool = False
    """Pay for requests to a requester-pays bucket; 1 or 0."""
    encryption: Encryption = ""
    """Server-side encryption of written objects; empty for the bucket's default."""
    kms_key_id: str = ""
    """Key ID for aws:kms; empty for the account's default key."""
    addressing: Addressing = "auto"
    """`path` for servers whose bucket.host names do not resolve; `auto`: path if an endpoint is set."""

    def reading(self) -> dict[str, str]:
        """Return the parameters of every read request."""
        return {"RequestPayer": "requester"} if self.requester_pays else {}

    def writing(self) -> dict[str, str]:
        """Return the parameters of every request that writes an object."""
        encryption = {"ServerSideEncryption": self.encryption, "SSEKMSKeyId": self.kms_key_id}
        return self.reading() | {name: value for name, value in encryption.items() if value}


_URL = "vdsm_url"
"""Key of the object's URL in the context of a request."""
VARIABLES = tuple(f"{PREFIX}{field.name.upper()}" for field in dataclasses.fields(S3Settings))
"""Names of all VDSM_S3_ variables."""


def settings() -> S3Settings:
    """Return the settings in the current environment.

    Raises:
        StorageError: a variable is unknown or has an invalid value.
    """
    ours = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
    return _parsed(tuple(sorted(ours.items())))


@functools.lru_cache(maxsize=8)
def _parsed(variables: tuple[tuple[str, str], ...]) -> S3Settings:
    fields = {f"{PREFIX}{field.name.upper()}": field for field in dataclasses.fields(S3Settings)}
    found: dict[str, Any] = {}
    for name, text in variables:
        if name not in fields:
            raise StorageError(f"{name} is not a setting; valid names are {', '.join(fields)}")
        field = fields[name]
        try:
            found[field.name] = _value(field.type, text)
        except ValueError as error:
            raise StorageError(f"{name} is {text!r}; it must be {error}") from None
    if found.get("kms_key_id") and found.get("encryption") != "aws:kms":
        raise StorageError(f"{PREFIX}KMS_KEY_ID is set; it needs {PREFIX}ENCRYPTION=aws:kms")
    return S3Settings(**found)


def _value(kind: Any, text: str) -> object:
    if kind is bool:
        if text not in ("0", "1"):
            raise ValueError("0 or 1")
        return text == "1"
    if kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            number = 0
        if not 0 < number < 1e6:
            raise ValueError(f"a positive {'whole number' if kind is int else 'number'}")
        return number
    if get_args(kind) and text not in get_args(kind):
        raise ValueError(" or ".join(option or "empty" for option in get_args(kind)))
    return text


def client() -> Any:
    """Return the client of this process for the current environment.

    A forked child gets a client of its own, since it must not share its parent's sockets.
    """
    return _make_client(os.getpid(), settings(), tuple(os.environ.get(name) for name in _OF_AWS))


@functools.lru_cache(maxsize=4)
def _make_client(_pid: int, wanted: S3Settings, _environment: tuple[str | None, ...]) -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise StorageError(f"s3:// needs boto3; {install('s3')}") from error
    own_endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    addressing = "path" if wanted.addressing == "auto" and own_endpoint else wanted.addressing
    session = boto3.session.Session()
    made = session.client(
        "s3",
        region_name=session.region_name or "us-east-1",
        config=Config(
            connect_timeout=wanted.connect_timeout_s,
            read_timeout=wanted.read_timeout_s,
            # `standard` retries throttling, 5xx and broken connections, but no other 4xx: wrong keys fail immediately.
            retries={"mode": "standard", "total_max_attempts": wanted.attempts},
            s3={"addressing_style": addressing},
        ),
    )
    made.meta.events.register("before-parameter-build.s3", _note_url)
    made.meta.events.register("request-created.s3", _check_request)
    return made


def _note_url(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    context[_URL] = f"s3://{params.get('Bucket')}/{params.get('Key')}"


def _check_request(request: Any, operation_name: str, **_: Any) -> None:
    """Refuse a request that writes behind a fence: each part of an upload, and each retry, since either may be late."""
    if request.method not in ("GET", "HEAD") and operation_name != "AbortMultipartUpload":
        check_write(request.context.get(_URL, ""))

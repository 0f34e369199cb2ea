"""S3 by boto3: reads that survive broken connections, and errors that say what to do.

Endpoint, region and credentials come from the environment or the AWS configuration files (AWS_ENDPOINT_URL and
AWS_ENDPOINT_URL_S3 are honoured); none of them is ever logged or stored.
"""

import functools
import io
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from cluster.storage import MissingFile, StorageError, Unreachable

READ_ATTEMPTS = 8
"""Attempts in a row that may bring no byte before a read is given up."""
_CHUNK = 1 << 20
_IDENTITY = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
)


def split_url(url: str) -> tuple[str, str]:
    """`s3://bucket/key` as (bucket, key)."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not bucket:
        raise StorageError(f"{url}: the bucket is missing; give s3://bucket/prefix")
    return bucket, key


def read_bytes(url: str) -> bytes:
    """The whole object."""
    buffer = io.BytesIO()
    _read_into(url, buffer)
    return buffer.getvalue()


def download(url: str, path: Path) -> None:
    """The whole object into the file `path`."""
    with path.open("wb") as file:
        _read_into(url, file)


def write_bytes(url: str, data: bytes) -> None:
    """One PUT: S3 shows the object whole or not at all."""
    bucket, key = split_url(url)
    try:
        _client().put_object(Bucket=bucket, Key=key, Body=data)
    except Exception as error:
        _explain(url, error)


def write_if(url: str, data: bytes, etag: str | None) -> str | None:
    """One PUT if the object still has `etag` (none: does not exist). Its new ETag, or none where it is another now."""
    bucket, key = split_url(url)
    condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
    try:
        return str(_client().put_object(Bucket=bucket, Key=key, Body=data, **condition)["ETag"])
    except Exception as error:
        if _status(error)[0] in (404, 409, 412):  # gone, being written by another, or another's
            return None
        _explain(url, error)


def read_with_etag(url: str) -> tuple[bytes, str]:
    """A small object and its ETag, of the same moment."""
    bucket, key = split_url(url)
    try:
        answer = _client().get_object(Bucket=bucket, Key=key)
        return bytes(answer["Body"].read()), str(answer["ETag"])
    except Exception as error:
        _explain(url, error)


def upload(path: Path, url: str) -> None:
    """A local file, in several parts if it is large; the object appears when the last part is there."""
    bucket, key = split_url(url)
    try:
        _client().upload_file(str(path), bucket, key)
    except Exception as error:
        _explain(url, error)


def size(url: str) -> int:
    """Length of the object in bytes."""
    return head(url)[0]


def delete(url: str) -> None:
    """Remove the object; nothing happens if there is none."""
    bucket, key = split_url(url)
    try:
        _client().delete_object(Bucket=bucket, Key=key)
    except Exception as error:
        _explain(url, error)


def list_files(url: str) -> list[str]:
    """Keys of all objects below `url`, relative to it, sorted."""
    return sorted(name for name, _, _ in list_objects(url))


def list_objects(url: str) -> Iterator[tuple[str, int, str]]:
    """Key relative to `url`, length in bytes and ETag of all objects below it, in the order of their keys."""
    bucket, prefix = split_url(url)
    prefix = prefix.rstrip("/") + "/" if prefix.strip("/") else ""
    try:
        for page in _client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for entry in page.get("Contents", []):
                if not entry["Key"].endswith("/"):
                    yield entry["Key"][len(prefix) :], int(entry["Size"]), str(entry["ETag"]).strip('"')
    except Exception as error:
        _explain(url, error)


def head(url: str) -> tuple[int, str]:
    """(length in bytes, ETag) of the object."""
    bucket, key = split_url(url)
    try:
        answer = _client().head_object(Bucket=bucket, Key=key)
    except Exception as error:
        _explain(url, error)
    return int(answer["ContentLength"]), str(answer["ETag"])


def _read_into(url: str, target: BinaryIO) -> None:
    """Copy the object into `target`, going on at the offset reached whenever the connection breaks or stalls.

    Every range is asked of the same ETag, so that a replaced object is never spliced together from two versions; an
    end of the stream before the object's length counts as a break, since HTTP bodies can end early without an error.
    """
    length, etag = head(url)
    offset = 0
    failures = 0
    while offset < length:
        before = offset
        try:
            for chunk in _stream(url, offset, etag):
                target.write(chunk)
                offset += len(chunk)
            error: Exception | None = None
        except Exception as broken:
            if _is_final(broken):
                _explain(url, broken)
            error = broken
        if offset >= length:
            break
        failures = 0 if offset > before else failures + 1
        if failures >= READ_ATTEMPTS:
            raise Unreachable(f"{url}: reading stopped at byte {offset} of {length} ({error or 'the body ended'})")
        time.sleep(min(5.0, 0.1 * 2**failures))
    if offset != length:
        raise StorageError(f"{url}: {offset} bytes came, but the object has {length}")


def _stream(url: str, offset: int, etag: str) -> Iterator[bytes]:
    bucket, key = split_url(url)
    body = _client().get_object(Bucket=bucket, Key=key, Range=f"bytes={offset}-", IfMatch=etag)["Body"]
    try:
        while chunk := body.read(_CHUNK):
            yield chunk
    finally:
        body.close()


def _client() -> Any:
    """The client of this process for the present environment (a forked child must not share its parent's sockets)."""
    return _make_client(os.getpid(), tuple(os.environ.get(name) for name in _IDENTITY))


@functools.lru_cache(maxsize=4)
def _make_client(_pid: int, _environment: tuple[str | None, ...]) -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise StorageError("s3:// needs boto3: pip install boto3") from error
    own_endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    session = boto3.session.Session()
    return session.client(
        "s3",
        region_name=session.region_name or "us-east-1",
        config=Config(
            connect_timeout=5,
            read_timeout=30,
            # `standard` retries throttling, 5xx and broken connections, but no other 4xx: wrong keys fail at once.
            retries={"mode": "standard", "total_max_attempts": 4},
            # bucket.host names do not resolve for most self-hosted servers.
            s3={"addressing_style": "path"} if own_endpoint else {},
        ),
    )


def _status(error: Exception) -> tuple[int, str]:
    """(HTTP status, S3 error code) of a botocore ClientError, (0, "") of anything else."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return 0, ""
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return int(status), str(response.get("Error", {}).get("Code", ""))


def _is_final(error: Exception) -> bool:
    """Whether trying again is pointless: a 4xx other than 429, or credentials that are not there."""
    from botocore.exceptions import NoCredentialsError, PartialCredentialsError

    status, _ = _status(error)
    return isinstance(error, NoCredentialsError | PartialCredentialsError | StorageError) or (
        400 <= status < 500 and status != 429
    )


def _explain(url: str, error: Exception) -> NoReturn:
    """Raise the StorageError that says what a user can do about a botocore `error`."""
    from boto3.exceptions import S3UploadFailedError
    from botocore import exceptions

    if isinstance(error, StorageError):
        raise error
    if isinstance(error, S3UploadFailedError) and isinstance(error.__context__, Exception):
        error = error.__context__  # which it hides
    bucket, _ = split_url(url)
    status, code = _status(error)
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        message = "no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    elif code == "NoSuchBucket" or (status == 404 and not _bucket_exists(bucket)):
        message = f"there is no bucket {bucket}; create it or check the name and AWS_ENDPOINT_URL"
    elif status == 404:
        raise MissingFile(f"{url}: there is no such object") from None
    elif status in (401, 403):
        reason = code if code and not code.isdigit() else "access denied"
        message = f"S3 refused the credentials or they lack the permission ({reason}); check the key and its policy"
    elif status == 412:
        message = "the object was replaced while it was read; start again"
    elif isinstance(error, exceptions.HTTPClientError | exceptions.ConnectionError):
        raise Unreachable(f"{url}: the S3 server does not answer; check AWS_ENDPOINT_URL and the network") from None
    elif status == 429 or status >= 500:
        raise Unreachable(f"{url}: S3 is overloaded or out of order ({code}, status {status}); try again") from None
    elif isinstance(error, exceptions.ProfileNotFound):
        message = str(error)
    else:
        message = f"S3 failed ({code or type(error).__name__}{f', status {status}' if status else ''})"
    raise StorageError(f"{url}: {message}") from None


def _bucket_exists(bucket: str) -> bool:
    try:
        _client().head_bucket(Bucket=bucket)
    except Exception as error:
        return _status(error)[0] != 404
    return True

"""Objects in S3 through boto3: reads that survive broken connections, and conditional writes.

The client and its settings are in `s3_client`, error messages in `s3_errors`.
"""

import io
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from cluster.storage.errors import MissingFileError, ReplacedError, StorageError, UnreachableError
from cluster.storage.fence import check_write, is_fenced
from cluster.storage.resumed import replaced, resumed
from cluster.storage.s3_client import client, settings
from cluster.storage.s3_errors import explain, is_final, status_of
from cluster.storage.s3_listing import list_in_ranges

READ_ATTEMPTS = 8
"""A read fails after this many consecutive attempts that transfer no byte."""
_CHUNK = 1 << 20
_ONE_PUT = 8 << 20
"""Largest file that boto3 uploads in one PUT; of a larger one, a fence checks each part and the last request."""
_WRITER = "vdsm-writer"
"""Metadata key that identifies the request that wrote an object."""


def split_url(url: str) -> tuple[str, str]:
    """Return (bucket, key) of `s3://bucket/key`."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not bucket:
        raise StorageError(f"{url}: the bucket is missing; give s3://bucket/prefix")
    return bucket, key


def read_bytes(url: str) -> bytes:
    """Return the complete object."""
    buffer = io.BytesIO()
    _read_into(url, buffer)
    return buffer.getvalue()


def read_range(url: str, start: int, length: int) -> bytes:
    """Return `length` bytes from offset `start`, or fewer at the end of the object."""
    buffer = io.BytesIO()
    _read_into(url, buffer, start, start + length)
    return buffer.getvalue()


def download(url: str, path: Path) -> None:
    """Write the complete object to the file `path`."""
    with path.open("wb") as file:
        _read_into(url, file)


def write_bytes(url: str, data: bytes) -> None:
    """Write an object in one PUT, which S3 applies completely or not at all.

    Behind a fence, the PUT is for the version that was there before the fence was checked: a process may be paused
    between its check and its PUT, and another one may write the object meanwhile.
    """
    bucket, key = split_url(url)
    for attempt in range(READ_ATTEMPTS):
        condition = _unchanged(url) if is_fenced(url) else {}
        try:
            client().put_object(Bucket=bucket, Key=key, Body=data, **condition, **settings().writing())
        except Exception as error:
            # Changed by this process or its workers, if the fence holds: by a PUT whose response was lost, for example.
            if condition and status_of(error)[0] in (404, 409, 412) and attempt + 1 < READ_ATTEMPTS:
                check_write(url)
                continue
            explain(url, error)
        return


def _unchanged(url: str) -> dict[str, str]:
    """Return the condition of a PUT that the object is as it is now."""
    try:
        return {"IfMatch": head(url)[1]}
    except MissingFileError:
        return {"IfNoneMatch": "*"}


def write_if(url: str, data: bytes, etag: str | None) -> str | None:
    """Write an object in one PUT if it still has `etag` (None: if it does not exist yet).

    Returns its new ETag, or None if the object has changed. A PUT whose response is lost is resent and then refused
    because of the first one; a mark in the metadata shows that the object is our own.
    """
    bucket, key = split_url(url)
    condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
    mark = uuid.uuid4().hex
    options = {"Metadata": {_WRITER: mark}, **condition, **settings().writing()}
    for attempt in range(READ_ATTEMPTS):
        try:
            return str(client().put_object(Bucket=bucket, Key=key, Body=data, **options)["ETag"])
        except Exception as error:
            status, code = status_of(error)
            if status == 409 and attempt + 1 < READ_ATTEMPTS:  # concurrent writes: S3 requires a retry
                time.sleep(min(0.4, 0.05 * 2**attempt) * (1 + int(mark[:2], 16) / 256))
                continue
            if status not in (409, 412) and not (status == 404 and code != "NoSuchBucket" and etag is not None):
                explain(url, error)
        break
    try:
        response = client().head_object(Bucket=bucket, Key=key, **settings().reading())
    except Exception as error:
        if status_of(error)[0] == 404:
            return None
        explain(url, error)
    return str(response["ETag"]) if response.get("Metadata", {}).get(_WRITER) == mark else None


def read_with_etag(url: str) -> tuple[bytes, str]:
    """Return a small object and the ETag of the version that was read."""
    while True:
        length, etag = head(url)
        buffer = io.BytesIO()
        try:
            _copy(url, buffer, 0, length, etag)
        except ReplacedError:
            continue
        return buffer.getvalue(), etag


def upload(path: Path, url: str) -> None:
    """Upload a local file, in several parts if it is large; the object appears after the last part."""
    bucket, key = split_url(url)
    length = path.stat().st_size
    if length < _ONE_PUT and is_fenced(url):
        write_bytes(url, path.read_bytes())
        return
    try:
        client().upload_file(str(path), bucket, key, ExtraArgs=settings().writing())
    except Exception as error:
        explain(url, error)
    stored = size(url)  # S3 starts its response before it has assembled the parts, which can still fail
    if stored != length:
        raise UnreachableError(f"{url}: {stored} of {length} bytes were stored; try again")


def size(url: str) -> int:
    """Return the length of the object in bytes."""
    return head(url)[0]


def delete(url: str) -> None:
    """Remove the object, if it exists."""
    bucket, key = split_url(url)
    try:
        client().delete_object(Bucket=bucket, Key=key)
    except Exception as error:
        explain(url, error)


def list_files(url: str) -> list[str]:
    """Return the sorted keys of all objects below `url`, relative to it."""
    return sorted(name for name, _, _ in list_objects(url))


def list_objects(url: str) -> Iterator[tuple[str, int, str]]:
    """Yield (key relative to `url`, length in bytes, ETag) of all objects below it, in order of their keys."""
    bucket, prefix = split_url(url)
    prefix = prefix.rstrip("/") + "/" if prefix.strip("/") else ""

    def page_of(**parameters: str) -> dict[str, Any]:
        return _page(url, Bucket=bucket, **parameters, **settings().reading())

    for entry in list_in_ranges(page_of, prefix, url):
        yield entry["Key"][len(prefix) :], int(entry["Size"]), str(entry["ETag"]).strip('"')


def _page(url: str, **parameters: str) -> dict[str, Any]:
    """Return one page of a listing. boto3 turns a response cut off after its header into an empty page: retry it."""
    for attempt in range(READ_ATTEMPTS):
        try:
            page: dict[str, Any] = client().list_objects_v2(**parameters)
        except Exception as error:
            explain(url, error)
        if "IsTruncated" in page:  # in every complete page
            return page
        time.sleep(min(5.0, 0.1 * 2**attempt))
    raise UnreachableError(
        f"{url}: the responses of the S3 server end early; check proxies between it and this machine"
    )


def head(url: str) -> tuple[int, str]:
    """Return (length in bytes, ETag) of the object."""
    bucket, key = split_url(url)
    try:
        response = client().head_object(Bucket=bucket, Key=key, **settings().reading())
    except Exception as error:
        explain(url, error)
    return int(response["ContentLength"]), str(response["ETag"])


def is_folder(url: str) -> bool:
    """Return whether `url` names a bucket, or cannot be one object."""
    return not split_url(url)[1] or url.endswith("/")


def _read_into(url: str, target: BinaryIO, start: int = 0, stop: int | None = None) -> None:
    """Copy bytes `start` to `stop` of the object (None: to its end) into `target`."""
    length, etag = head(url)
    _copy(url, target, start, length if stop is None else min(length, stop), etag)


def _copy(url: str, target: BinaryIO, start: int, stop: int, etag: str) -> None:
    """Copy bytes into `target`, whose own errors pass: a full disk is no fault of S3."""
    for chunk in _chunks(url, start, stop, etag):
        target.write(chunk)


def _chunks(url: str, start: int, stop: int, etag: str) -> Iterator[bytes]:
    """Yield bytes of one version, whatever happens to the connection."""

    def raise_final(error: Exception) -> None:
        if status_of(error)[0] == 412:
            raise replaced(url) from None
        if is_final(error):
            explain(url, error)

    return resumed(url, start, stop, lambda offset: _stream(url, offset, stop, etag), raise_final, READ_ATTEMPTS)


def _stream(url: str, offset: int, stop: int, etag: str) -> Iterator[bytes]:
    bucket, key = split_url(url)
    options = {"Range": f"bytes={offset}-{stop - 1}", "IfMatch": etag, **settings().reading()}
    body = client().get_object(Bucket=bucket, Key=key, **options)["Body"]
    try:
        while chunk := body.read(_CHUNK):
            yield chunk
    finally:
        body.close()

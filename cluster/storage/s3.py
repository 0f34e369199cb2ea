"""Objects in S3 by boto3: reads that survive broken connections, writes that happen once, errors that say what to do.

How S3 is reached, and with which settings, is `s3_client`.
"""

import io
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from cluster.storage.errors import StorageError, UnreachableError
from cluster.storage.s3_client import client, settings
from cluster.storage.s3_errors import explain, is_final, status_of

READ_ATTEMPTS = 8
"""Attempts in a row that may bring no byte before a read is given up."""
_CHUNK = 1 << 20
_WRITER = "vdsm-writer"
"""Metadata that says which request made an object."""


class ReplacedError(StorageError):
    """The object is another one than when reading it began."""


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


def read_range(url: str, start: int, length: int) -> bytes:
    """At most `length` bytes from `start`; fewer only where the object ends."""
    buffer = io.BytesIO()
    _read_into(url, buffer, start, start + length)
    return buffer.getvalue()


def download(url: str, path: Path) -> None:
    """The whole object into the file `path`."""
    with path.open("wb") as file:
        _read_into(url, file)


def write_bytes(url: str, data: bytes) -> None:
    """One PUT: S3 shows the object whole or not at all."""
    bucket, key = split_url(url)
    try:
        client().put_object(Bucket=bucket, Key=key, Body=data, **settings().writing())
    except Exception as error:
        explain(url, error)


def write_if(url: str, data: bytes, etag: str | None) -> str | None:
    """One PUT if the object still has `etag` (none: does not exist). Its new ETag, or none where it is another now.

    A PUT whose answer is lost is sent again, and then refused because of itself: whose object it is says a mark in it.
    """
    bucket, key = split_url(url)
    condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
    mark = uuid.uuid4().hex
    words = {"Metadata": {_WRITER: mark}, **condition, **settings().writing()}
    for attempt in range(READ_ATTEMPTS):
        try:
            return str(client().put_object(Bucket=bucket, Key=key, Body=data, **words)["ETag"])
        except Exception as error:
            status, code = status_of(error)
            if status == 409 and attempt + 1 < READ_ATTEMPTS:  # two at the same moment: S3 wants to be asked again
                time.sleep(min(0.4, 0.05 * 2**attempt) * (1 + int(mark[:2], 16) / 256))
                continue
            if status not in (409, 412) and not (status == 404 and code != "NoSuchBucket" and etag is not None):
                explain(url, error)
        break
    try:
        answer = client().head_object(Bucket=bucket, Key=key, **settings().reading())
    except Exception as error:
        if status_of(error)[0] == 404:
            return None
        explain(url, error)
    return str(answer["ETag"]) if answer.get("Metadata", {}).get(_WRITER) == mark else None


def read_with_etag(url: str) -> tuple[bytes, str]:
    """A small object and its ETag, of the same moment."""
    while True:
        length, etag = head(url)
        buffer = io.BytesIO()
        try:
            _copy(url, buffer, 0, length, etag)
        except ReplacedError:
            continue
        return buffer.getvalue(), etag


def upload(path: Path, url: str) -> None:
    """A local file, in several parts if it is large; the object appears when the last part is there."""
    bucket, key = split_url(url)
    length = path.stat().st_size
    try:
        client().upload_file(str(path), bucket, key, ExtraArgs=settings().writing())
    except Exception as error:
        explain(url, error)
    stored = size(url)  # S3 begins to answer before it has put the parts together, and may fail then
    if stored != length:
        raise UnreachableError(f"{url}: {stored} of {length} bytes were stored; try again")


def size(url: str) -> int:
    """Length of the object in bytes."""
    return head(url)[0]


def delete(url: str) -> None:
    """Remove the object; nothing happens if there is none."""
    bucket, key = split_url(url)
    try:
        client().delete_object(Bucket=bucket, Key=key)
    except Exception as error:
        explain(url, error)


def list_files(url: str) -> list[str]:
    """Keys of all objects below `url`, relative to it, sorted."""
    return sorted(name for name, _, _ in list_objects(url))


def list_objects(url: str) -> Iterator[tuple[str, int, str]]:
    """Key relative to `url`, length in bytes and ETag of all objects below it, in the order of their keys."""
    bucket, prefix = split_url(url)
    prefix = prefix.rstrip("/") + "/" if prefix.strip("/") else ""
    after: dict[str, str] = {}
    while True:
        page = _page(url, Bucket=bucket, Prefix=prefix, **after, **settings().reading())
        for entry in page.get("Contents", []):
            if not entry["Key"].endswith("/"):
                yield entry["Key"][len(prefix) :], int(entry["Size"]), str(entry["ETag"]).strip('"')
        if not page["IsTruncated"]:
            return
        after = {"ContinuationToken": page["NextContinuationToken"]}


def _page(url: str, **asked: str) -> dict[str, Any]:
    """One page of a listing. boto3 takes an answer that ends behind its header for an empty page: it is asked again."""
    for attempt in range(READ_ATTEMPTS):
        try:
            page: dict[str, Any] = client().list_objects_v2(**asked)
        except Exception as error:
            explain(url, error)
        if "IsTruncated" in page:  # every whole page says so
            return page
        time.sleep(min(5.0, 0.1 * 2**attempt))
    raise UnreachableError(
        f"{url}: the answers of the S3 server end early; check what lies between it and this machine"
    )


def head(url: str) -> tuple[int, str]:
    """(length in bytes, ETag) of the object."""
    bucket, key = split_url(url)
    try:
        answer = client().head_object(Bucket=bucket, Key=key, **settings().reading())
    except Exception as error:
        explain(url, error)
    return int(answer["ContentLength"]), str(answer["ETag"])


def _read_into(url: str, target: BinaryIO, start: int = 0, stop: int | None = None) -> None:
    """Copy the bytes from `start` to `stop` of the object, or to its end, into `target`."""
    length, etag = head(url)
    _copy(url, target, start, length if stop is None else min(length, stop), etag)


def _copy(url: str, target: BinaryIO, start: int, stop: int, etag: str) -> None:
    """Copy bytes into `target`, going on at the offset reached whenever the connection breaks or stalls.

    Every range is asked of the same ETag, so that a replaced object is never spliced together from two versions; an
    end of the stream before `stop` counts as a break, since HTTP bodies can end early without an error.
    """
    offset = start
    failures = 0
    while offset < stop:
        before = offset
        try:
            for chunk in _stream(url, offset, stop, etag):
                target.write(chunk)
                offset += len(chunk)
            error: Exception | None = None
        except Exception as broken:
            if status_of(broken)[0] == 412:
                raise ReplacedError(f"{url}: the object was replaced while it was read; start again") from None
            if is_final(broken):
                explain(url, broken)
            error = broken
        if offset >= stop:
            break
        failures = 0 if offset > before else failures + 1
        if failures >= READ_ATTEMPTS:
            raise UnreachableError(f"{url}: reading stopped at byte {offset} of {stop} ({error or 'the body ended'})")
        time.sleep(min(5.0, 0.1 * 2**failures))
    if offset != stop:
        raise StorageError(f"{url}: bytes up to {offset} came, but up to {stop} were asked for")


def _stream(url: str, offset: int, stop: int, etag: str) -> Iterator[bytes]:
    bucket, key = split_url(url)
    asked = {"Range": f"bytes={offset}-{stop - 1}", "IfMatch": etag, **settings().reading()}
    body = client().get_object(Bucket=bucket, Key=key, **asked)["Body"]
    try:
        while chunk := body.read(_CHUNK):
            yield chunk
    finally:
        body.close()

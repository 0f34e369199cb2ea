"""Objects in Google Cloud Storage and Azure Blob Storage through obstore: the functions of `s3`, by the same contract.

Addresses and credentials are those of any program for these clouds: GOOGLE_APPLICATION_CREDENTIALS or the account of
the machine; AZURE_STORAGE_ACCOUNT_NAME with a key, a SAS token, a principal or the identity of the machine. The client
and the error messages are in `cloud_client`. A version token is the object's ETag and, in Google's, its generation.
"""

import contextlib
import io
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from cluster.storage.cloud_client import explain, kind_of, split_url, store_of
from cluster.storage.errors import MissingFileError, ReplacedError, StorageError, UnreachableError
from cluster.storage.fence import check_write, is_fenced
from cluster.storage.resumed import replaced, resumed

READ_ATTEMPTS = 8
"""A read fails after this many consecutive attempts that transfer no byte."""
MAX_FENCED_BYTES = 4 << 30
"""Largest file that is written behind a fence, in bytes: it is one PUT, since only that can have a condition."""
_CHUNK = 1 << 20
_WRITER = "vdsmwriter"
"""Metadata key that identifies the request that wrote an object; Azure allows letters and digits only."""


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
    """Write an object in one PUT; behind a fence, one for the version that was there before the fence was checked."""
    for attempt in range(READ_ATTEMPTS):
        fenced = is_fenced(url)
        mode = _unchanged(url) if fenced else "overwrite"
        check_write(url)
        try:
            _put(url, data, mode)
        except Exception as error:
            # Changed by this process or its workers, if the fence holds: by a PUT whose response was lost, for example.
            if fenced and kind_of(error) in ("changed", "missing") and attempt + 1 < READ_ATTEMPTS:
                continue
            explain(url, error)
        return


def write_if(url: str, data: bytes, etag: str | None) -> str | None:
    """Write an object in one PUT if it still has the version `etag` (None: if it does not exist yet).

    Returns its new version, or None if the object has changed. A PUT whose response is lost is resent and then refused
    because of the first one; a mark in the metadata shows that the object is our own.
    """
    mark = uuid.uuid4().hex
    check_write(url)
    try:
        return _token(_put(url, data, "create" if etag is None else _condition(etag), mark))
    except Exception as error:
        kind = kind_of(error)
        if kind not in ("changed", "missing") or (kind == "missing" and etag is None):
            explain(url, error)
    try:
        found = _get(url, {"head": True})
    except Exception as error:
        if kind_of(error) == "missing":
            return None
        explain(url, error)
    ours = mark in (found.attributes.get(name) for name in (_WRITER, _WRITER.title()))
    return _token(found.meta) if ours else None


def read_with_etag(url: str) -> tuple[bytes, str]:
    """Return a small object and the version that was read."""
    while True:
        length, etag = head(url)
        buffer = io.BytesIO()
        try:
            _copy(url, buffer, 0, length, etag)
        except ReplacedError:
            continue
        return buffer.getvalue(), etag


def upload(path: Path, url: str) -> None:
    """Upload a local file, in several parts if it is large; the object appears after the last part.

    Behind a fence it is one conditional PUT, from memory.
    """
    length = path.stat().st_size
    if is_fenced(url):
        if length > MAX_FENCED_BYTES:
            raise StorageError(f"{url}: {length} bytes are more than one request can write, {MAX_FENCED_BYTES}")
        write_bytes(url, path.read_bytes())
    else:
        try:
            store, key = store_of(url)
            store.put(key, path, chunk_size=8 << 20)
        except Exception as error:
            explain(url, error)
    stored = size(url)
    if stored != length:
        raise UnreachableError(f"{url}: {stored} of {length} bytes were stored; try again")


def size(url: str) -> int:
    """Return the length of the object in bytes."""
    return head(url)[0]


def delete(url: str) -> None:
    """Remove the object, if it exists."""
    check_write(url)
    store, key = store_of(url)
    try:
        store.delete(key)
    except Exception as error:
        with contextlib.suppress(MissingFileError):
            explain(url, error)


def list_files(url: str) -> list[str]:
    """Return the sorted keys of all objects below `url`, relative to it."""
    return [name for name, _, _ in list_objects(url)]


def list_objects(url: str) -> Iterator[tuple[str, int, str]]:
    """Yield (key relative to `url`, length in bytes, version) of all objects below it, in order of their keys."""
    store, prefix = store_of(url)
    prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
    try:
        found = store.list(prefix or None).collect()
    except Exception as error:
        explain(url, error)
    for entry in sorted(found, key=lambda one: str(one["path"])):
        name = str(entry["path"])[len(prefix) :]
        if name:
            yield name, int(entry["size"]), str(entry["e_tag"] or entry["version"]).strip('"')


def head(url: str) -> tuple[int, str]:
    """Return (length in bytes, version) of the object."""
    store, key = store_of(url)
    try:
        found = store.head(key)
    except Exception as error:
        explain(url, error)
    return int(found["size"]), _token(found)


def is_folder(url: str) -> bool:
    """Return whether `url` names a bucket, or cannot be one object."""
    return not split_url(url)[2] or url.endswith("/")


def _put(url: str, data: bytes, mode: Any, mark: str = "") -> Any:
    store, key = store_of(url)
    return store.put(key, data, mode=mode, use_multipart=False, attributes={_WRITER: mark} if mark else None)


def _get(url: str, options: Any) -> Any:
    store, key = store_of(url)
    return store.get(key, options=options)


def _token(found: Any) -> str:
    return json.dumps([found["e_tag"], found["version"]])


def _condition(token: str) -> dict[str, str]:
    etag, version = json.loads(token)
    return {name: value for name, value in (("e_tag", etag), ("version", version)) if value is not None}


def _unchanged(url: str) -> Any:
    """Return the mode of a PUT that the object is as it is now."""
    try:
        return _condition(head(url)[1])
    except MissingFileError:
        return "create"


def _read_into(url: str, target: BinaryIO, start: int = 0, stop: int | None = None) -> None:
    length, etag = head(url)
    _copy(url, target, start, length if stop is None else max(start, min(length, stop)), etag)


def _copy(url: str, target: BinaryIO, start: int, stop: int, etag: str) -> None:
    """Copy bytes of one version into `target`, whose own errors pass: a full disk is no fault of the cloud."""

    def raise_final(error: Exception) -> None:
        if isinstance(error, ReplacedError):
            raise error
        kind = kind_of(error)
        if kind == "changed":
            raise replaced(url) from None
        if kind != "unreachable":
            explain(url, error)

    for chunk in resumed(url, start, stop, lambda offset: _stream(url, offset, stop, etag), raise_final, READ_ATTEMPTS):
        target.write(chunk)


def _stream(url: str, offset: int, stop: int, etag: str) -> Iterator[bytes]:
    wanted = json.loads(etag)[0]
    found = _get(url, {"range": (offset, stop), **({"if_match": wanted} if wanted else {})})
    if json.loads(_token(found.meta))[0] != wanted:
        raise replaced(url)
    for chunk in found.stream(min_chunk_size=_CHUNK):
        yield bytes(chunk)

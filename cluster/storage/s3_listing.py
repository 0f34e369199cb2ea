"""List objects of S3 by several requests at once, in the order in which one request after another lists them.

A listing comes in pages of 1,000 keys, each of which starts where the one before ended. Beyond the first page, folders
divide it into ranges: a range starts at one folder and ends where the first key of a later one is met, so that ranges
follow on each other whatever the order of the server is. A server that does not list ranges so, or a folder that is
deleted meanwhile, makes the listing one request after another again.
"""

import itertools
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from cluster.storage.errors import StorageError, UnreachableError

Page = dict[str, Any]
"""A response to ListObjectsV2."""
Listed = list[dict[str, Any]]
"""Objects, as a page holds them."""

THREADS = 8
"""Requests at once; a client keeps ten connections."""
AHEAD = 4 * THREADS
"""Ranges that are listed before they are used."""
MOST_RANGES = 256
"""Ranges into which a listing is divided; more than threads, since they differ in length."""
DEPTH = 4
"""Levels of folders that are searched for enough ranges."""
FEWEST_OBJECTS = 4
"""Objects per folder from which on folders are searched for; with fewer, that takes as long as to list the objects."""


class _UndividedError(Exception):
    """The server does not list ranges as they were asked for."""


def list_in_ranges(page_of: Callable[..., Page], prefix: str, url: str) -> Iterator[dict[str, Any]]:
    """Yield the objects below a prefix, in the order of the server, without those that stand for folders.

    No request beyond the first is made before the objects of the first page have been used.

    Args:
        page_of: returns a page for the parameters of ListObjectsV2 except the bucket. Several threads call it.
        prefix: of the keys; empty, or ending in `/`.
        url: what is listed, for messages.

    Raises:
        StorageError: objects were added or removed, and the server cannot list ranges.
    """
    first = page_of(Prefix=prefix)
    yield from _files(first.get("Contents", []))
    if not first["IsTruncated"]:
        return
    yielded, last = 0, ""
    try:
        for entry in _files(_list_ranges(page_of, prefix, first, _starts(page_of, prefix, first["Contents"]))):
            yielded, last = yielded + 1, entry["Key"]
            yield entry
    except UnreachableError:
        raise
    except (_UndividedError, StorageError):
        rest = _files(_list_rest(page_of, prefix, first))
        known = list(itertools.islice(rest, yielded))
        if yielded and (len(known) < yielded or known[-1]["Key"] != last):
            raise StorageError(f"{url}: objects were added or removed while they were listed; rerun") from None
        yield from rest


def _files(entries: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (entry for entry in entries if not entry["Key"].endswith("/"))


def _list_rest(page_of: Callable[..., Page], prefix: str, page: Page) -> Iterator[dict[str, Any]]:
    """Yield what follows a page, one request after another."""
    while page["IsTruncated"]:
        page = page_of(Prefix=prefix, ContinuationToken=page["NextContinuationToken"])
        yield from page.get("Contents", [])


def _starts(page_of: Callable[..., Page], prefix: str, listed: Listed) -> list[str]:
    """Return the folders at which to start a range of what follows the objects of a first page, in their order."""
    keys, last = [entry["Key"] for entry in listed], listed[-1]["Key"]
    if _covered(keys, prefix.count("/") + 1) * FEWEST_OBJECTS > len(keys):
        return []
    found = [prefix]
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(DEPTH):
            deeper = [*pool.map(lambda folder: _folders(page_of, folder, last), found)]
            if not any(deeper):
                break
            found = [one for folder, below in zip(found, deeper, strict=True) for one in below or [folder]]
            if len(found) > 2 * THREADS:
                break
    found = [folder for folder in found if folder != prefix and not last.startswith(folder)]
    if not found:
        return []
    pages = len(found) / _covered(keys, found[0].count("/"))  # as many folders to a page as in the first one
    step = max(1, math.ceil(len(found) / min(MOST_RANGES, max(1, round(2 * pages)))))
    return found[::step] if pages > 1 else []


def _covered(keys: list[str], depth: int) -> int:
    """Return how many folders of so many parts the keys lie in; at least 1."""
    return max(1, len({tuple(key.split("/")[:depth]) for key in keys if key.count("/") >= depth}))


def _folders(page_of: Callable[..., Page], prefix: str, after: str) -> list[str]:
    """Return the folders in a prefix that hold keys after `after`, unless most of what is in the prefix are files."""
    found: list[str] = []
    begin = {"StartAfter": after} if after.startswith(prefix) else {}
    while True:
        page = page_of(Prefix=prefix, Delimiter="/", **begin)
        folders = [one["Prefix"] for one in page.get("CommonPrefixes", [])]
        found += folders
        if not page["IsTruncated"] or len(folders) < len(page.get("Contents", [])):
            return found
        begin = {"ContinuationToken": page["NextContinuationToken"]}


def _list_ranges(page_of: Callable[..., Page], prefix: str, first: Page, starts: list[str]) -> Iterator[dict[str, Any]]:
    """Yield what follows the first page: ranges that begin after it and at each of `starts`, listed ahead of use."""
    if not starts:
        yield from _list_rest(page_of, prefix, first)
        return
    ended = threading.Event()

    def listed(start: str | None, end: str | None) -> Listed:
        begin = {"ContinuationToken": first["NextContinuationToken"]} if start is None else {"StartAfter": start}
        entries: Listed = []
        while not ended.is_set():
            page = page_of(Prefix=prefix, **begin)
            contents = page.get("Contents", [])
            if start is not None and contents and contents[0]["Key"] == first["Contents"][0]["Key"]:
                raise _UndividedError  # it lists everything, wherever it should start
            for number, entry in enumerate(contents if end is not None else ()):
                if entry["Key"].startswith(end):
                    return [*entries, *contents[:number]]
            entries += contents
            if not page["IsTruncated"]:
                break
            begin = {"ContinuationToken": page["NextContinuationToken"]}
        if end is not None:
            raise _UndividedError
        return entries

    waiting: deque[Future[Listed]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for start, end in itertools.pairwise((None, *starts, None)):
                waiting.append(pool.submit(listed, start, end))
                if len(waiting) > AHEAD:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            ended.set()
            for future in waiting:
                future.cancel()

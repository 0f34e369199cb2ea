"""A listing by several requests at once holds the same objects, in the same order, as one request after another."""

import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.storage import api as storage
from cluster.storage.errors import StorageError, UnreachableError
from cluster.storage.s3_client import client
from cluster.storage.s3_listing import list_in_ranges
from tests.property_settings import examples

Order = Callable[[str], Any]

ORDERS: dict[str, Order] = {"bytes": str.encode, "folder by folder": lambda key: key.split("/")}
"""Orders of keys: that of S3, and that of servers which keep folders."""


class Server:
    """Answers ListObjectsV2 for a few keys, with short pages."""

    def __init__(self, keys: set[str], order: Order, page_size: int) -> None:
        self.keys, self._order, self._page_size = sorted(keys, key=order), order, page_size
        self.requests: list[dict[str, str]] = []
        self.ignores_start = self.lacks_folders = False

    def page(self, Prefix: str, Delimiter: str = "", StartAfter: str = "", ContinuationToken: str = "") -> Any:
        self.requests.append({"Delimiter": Delimiter, "StartAfter": StartAfter, "ContinuationToken": ContinuationToken})
        if Delimiter and self.lacks_folders:
            raise StorageError("access denied")
        after = ContinuationToken or ("" if self.ignores_start else StartAfter)
        found: dict[tuple[str, bool], None] = {}
        for key in self.keys:
            name, is_folder, _ = key.removeprefix(Prefix).partition(Delimiter or "\0")
            entry = (Prefix + name + "/", True) if is_folder else (key, False)
            rolled = ContinuationToken.endswith("/") and bool(Delimiter) and key.startswith(ContinuationToken)
            is_later = not after or (self._order(key) > self._order(after) and not rolled)
            if key.startswith(Prefix) and is_later:
                found[entry] = None
        shown = list(found)[: self._page_size]
        return {
            "Contents": [{"Key": key} for key, is_folder in shown if not is_folder],
            "CommonPrefixes": [{"Prefix": key} for key, is_folder in shown if is_folder],
            "IsTruncated": len(found) > len(shown),
            **({"NextContinuationToken": shown[-1][0]} if len(found) > len(shown) else {}),
        }

    def sequential(self, prefix: str) -> list[str]:
        return [key for key in self.keys if key.startswith(prefix) and not key.endswith("/")]

    def ranges(self) -> int:
        return sum(bool(one["StartAfter"]) and not one["Delimiter"] for one in self.requests)


def listed(server: Server, prefix: str = "") -> list[str]:
    return [entry["Key"] for entry in list_in_ranges(server.page, prefix, "s3://bucket")]


NAMES = st.sampled_from(("a", "a-b", "a.b", "b", "a b", "é", "z", "日", "0"))
FOLDERS = st.lists(NAMES, max_size=3).map(lambda parts: "".join(f"{part}/" for part in parts))


@st.composite
def buckets(draw: st.DrawFn) -> set[str]:
    keys: set[str] = set()
    for folder in draw(st.lists(FOLDERS, min_size=1, max_size=12)):
        keys |= {f"{folder}{name}" for name in draw(st.sets(NAMES, max_size=3))}
        keys |= {f"{folder}clip{number}" for number in range(draw(st.integers(0, 30)))}
        keys |= {folder} if folder and draw(st.booleans()) else set()  # an object that stands for the folder
    return keys


@examples(150)
@given(
    keys=buckets(),
    order=st.sampled_from(sorted(ORDERS)),
    page_size=st.integers(2, 20),
    prefix=st.sampled_from(("", "a/", "a/b/")),
    ignores_start=st.booleans(),
    lacks_folders=st.booleans(),
)
def test_it_is_the_sequential_listing(
    keys: set[str], order: str, page_size: int, prefix: str, ignores_start: bool, lacks_folders: bool
) -> None:
    server = Server(keys, ORDERS[order], page_size)
    server.ignores_start, server.lacks_folders = ignores_start, lacks_folders
    assert listed(server, prefix) == server.sequential(prefix)


def tree(*folders: int, files: int) -> set[str]:
    """Return keys in nested folders, of so many at each level."""
    names = ["".join(f"{one:03d}/" for one in path) for path in itertools.product(*map(range, folders))]
    return {f"in/{name}{number:04d}.mp4" for name in names for number in range(files)}


@pytest.mark.parametrize("order", sorted(ORDERS))
@pytest.mark.parametrize("folders", [(50,), (2, 25), (1, 1, 40)])
def test_large_folders_are_listed_as_ranges(order: str, folders: tuple[int, ...]) -> None:
    server = Server(tree(*folders, files=60), ORDERS[order], 20)
    assert listed(server, "in/") == server.sequential("in/")
    assert server.ranges() >= 16


@pytest.mark.parametrize("fault", ["ignores_start", "lacks_folders"])
def test_a_server_that_cannot_list_ranges_is_asked_for_one_page_after_another(fault: str) -> None:
    server = Server(tree(30, files=40), ORDERS["bytes"], 20)
    setattr(server, fault, True)
    assert listed(server, "in/") == server.sequential("in/")


def test_ranges_are_listed_at_the_same_time() -> None:
    server, together = Server(tree(20, files=40), ORDERS["bytes"], 10), threading.Barrier(4)
    met: list[int] = []

    def page(**parameters: str) -> Any:
        if "StartAfter" in parameters and "Delimiter" not in parameters and not met:
            met.append(together.wait(timeout=60))
        return server.page(**parameters)

    found = [entry["Key"] for entry in list_in_ranges(page, "in/", "s3://bucket")]
    assert len(met) >= 4
    assert found == server.sequential("in/")


@pytest.mark.parametrize("keys", [tree(500, files=1), tree(100, files=3), tree(files=300), tree(4, files=2)])
def test_where_folders_are_small_or_absent_no_request_is_added(keys: set[str]) -> None:
    server = Server(keys, ORDERS["bytes"], 20)
    assert listed(server, "in/") == server.sequential("in/")
    assert len(server.requests) <= -(-len(keys) // 20) + 1


def test_only_the_first_page_is_requested_until_more_is_used() -> None:
    server, before = Server(tree(30, files=40), ORDERS["bytes"], 20), set(threading.enumerate())
    objects = list_in_ranges(server.page, "in/", "s3://bucket")
    for _ in range(20):
        next(objects)
    assert len(server.requests) == 1
    next(objects)
    objects.close()
    assert not [one.name for one in set(threading.enumerate()) - before if "ThreadPool" in one.name]


@pytest.mark.parametrize(("deleted", "is_error"), [("in/025/", False), ("in/003/", True)])
def test_what_is_deleted_meanwhile_is_left_out_or_named(deleted: str, is_error: bool) -> None:
    server, is_deleted = Server(tree(30, files=40), ORDERS["bytes"], 20), threading.Event()

    def page(**parameters: str) -> Any:
        if "Delimiter" not in parameters and parameters.get("StartAfter", "") >= "in/020/":
            is_deleted.wait(timeout=60)
        return server.page(**parameters)

    found: list[str] = []
    expected = [key for key in server.keys if not key.startswith(deleted)]
    objects = list_in_ranges(page, "in/", "s3://bucket/in")
    found += (entry["Key"] for entry in itertools.islice(objects, 400))
    server.keys = expected
    is_deleted.set()
    if is_error:  # of what has been used already, before the server was found to lack a folder at which a range ends
        server.keys = [key for key in expected if not key.startswith("in/025/")]
        with pytest.raises(StorageError, match="s3://bucket/in: objects were added or removed while they were listed"):
            found.extend(entry["Key"] for entry in objects)
        return
    found += (entry["Key"] for entry in objects)
    assert found == expected


def test_a_server_that_does_not_respond_is_an_error() -> None:
    server = Server(tree(30, files=40), ORDERS["bytes"], 20)

    def page(**parameters: str) -> Any:
        if parameters.get("StartAfter", "").startswith("in/010"):
            raise UnreachableError("no response")
        return server.page(**parameters)

    with pytest.raises(UnreachableError, match="no response"):
        list(list_in_ranges(page, "in/", "s3://bucket"))


def test_a_real_server_gives_the_same_both_ways(s3_bucket: str) -> None:
    keys = {f"in/{folder}/{number:02d}" for folder in ("a", "a-b", "a/x", "b", "é", "z") for number in range(15)}
    for key in {*keys, "in/a.txt"}:
        storage.write_bytes(f"{s3_bucket}/{key}", b"x")
    bucket, ranges = s3_bucket.removeprefix("s3://"), []

    def page(**parameters: str) -> Any:
        ranges.append("StartAfter" in parameters and "Delimiter" not in parameters)
        return client().list_objects_v2(Bucket=bucket, MaxKeys=10, **parameters)

    found = [entry["Key"] for entry in list_in_ranges(page, "in/", s3_bucket)]
    assert any(ranges)
    everything = [entry["Key"] for entry in client().list_objects_v2(Bucket=bucket, Prefix="in/")["Contents"]]
    assert found == everything
    assert set(found) == {*keys, "in/a.txt"}

"""The table of shards of format 3, `shards.arrow`: a row for each shard, in the order of the manifest.

It is mapped, so all processes of a machine share one copy, and an entry is made only when it is asked for.
"""

import mmap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from preprocessing.dataset import arrow_file, schema
from preprocessing.dataset.arrow_file import HASH_BYTES, Kinds
from preprocessing.dataset.constraints import InsideDataset
from preprocessing.dataset.errors import damaged_file
from preprocessing.dataset.format import ShardEntry, index_path
from preprocessing.dataset.schema import SchemaError

MAX_BYTES = 2**32
"""Largest accepted table; a shard takes about 150 bytes."""

_HASHES = ("sha256", "index_sha256", "columns_sha256")
_KINDS: Kinds = {
    "split": "uint8", "clips": "int64", "size_bytes": "int64", "columns_bytes": "int64",
    **dict.fromkeys(_HASHES, "hash"), "path": "text",
}  # fmt: skip

Indices = NDArray[np.int64]


def encode_table(shards: Iterable[ShardEntry], splits: Sequence[str]) -> bytes:
    """Return the table of the given shards.

    Args:
        shards: entries of format 3.
        splits: the splits in the order of the manifest, by which the table numbers them.
    """
    shards = list(shards)
    numbers = {split: number for number, split in enumerate(splits)}
    rows: dict[str, Any] = {
        "split": np.array([numbers[shard["split"]] for shard in shards], dtype=np.uint8),
        **{
            name: np.array([shard[name] for shard in shards], dtype=np.int64)
            for name in ("clips", "size_bytes", "columns_bytes")
        },
        "path": arrow_file.ragged([shard["path"].encode() for shard in shards]),
    }
    for name in _HASHES:
        joined = bytes.fromhex("".join(shard[name] for shard in shards))  # type: ignore[literal-required]
        rows[name] = np.frombuffer(joined, dtype=np.uint8).reshape(len(shards), HASH_BYTES)
    return arrow_file.encode(rows, _KINDS)


class ShardTable(Sequence[ShardEntry]):
    """The shards of a dataset, or of a split of it.

    Args:
        url: the dataset, for errors.
        path: the table, likewise.
        data: its content.
        splits: the splits in the order of the manifest.
        shards: their number in the manifest.

    Raises:
        SchemaError: the table is not as the format declares it.
    """

    def __init__(self, url: str, path: str, data: mmap.mmap | bytes, splits: Sequence[str], shards: int) -> None:
        self._url, self._path, self._splits = url, path, list(splits)
        self._columns = arrow_file.decode(data, _KINDS)
        if self._columns.rows != shards:
            raise SchemaError(f"lists {self._columns.rows} shards, but the manifest says {shards}")
        self._rows: Indices | None = None
        """Rows of the table; None are all."""
        for name in ("clips", "size_bytes", "columns_bytes"):
            self._check(self._columns.array(name) < 1, f"a wrong `{name}`")
            if float(self._columns.array(name).sum(dtype=np.float64)) > schema.MAX_INT:
                raise SchemaError(f"has {name} whose sum is no integer of 64 bits")
        self._check(self._columns.array("split") >= len(self._splits), "a split that the manifest does not have")

    def _check(self, wrong: NDArray[np.bool_], problem: str) -> None:
        found = np.flatnonzero(wrong)
        if len(found):
            raise SchemaError(f"gives shard {found[0]} {problem}")

    def of_split(self, split: str) -> "ShardTable":
        """Return the shards of a split."""
        return self._part(np.flatnonzero(self._columns.array("split") == self._splits.index(split)))

    def _part(self, rows: Indices) -> "ShardTable":
        part = object.__new__(ShardTable)
        part.__dict__ |= self.__dict__ | {"_rows": rows}
        return part

    def numbers(self, name: str) -> Indices:
        """Return `clips`, `size_bytes` or `columns_bytes` of each shard, [S]."""
        column: Indices = self._columns.array(name)
        return column if self._rows is None else column[self._rows]

    def hashes(self, name: str) -> NDArray[np.uint8]:
        """Return `sha256`, `index_sha256` or `columns_sha256` of each shard, [S, 32]."""
        column: NDArray[np.uint8] = self._columns.array(name)
        return column if self._rows is None else column[self._rows]

    def __len__(self) -> int:
        return self._columns.rows if self._rows is None else len(self._rows)

    @overload
    def __getitem__(self, index: int) -> ShardEntry: ...
    @overload
    def __getitem__(self, index: slice) -> "ShardTable": ...
    def __getitem__(self, index: int | slice) -> "ShardEntry | ShardTable":
        if isinstance(index, slice):
            rows = np.arange(len(self)) if self._rows is None else self._rows
            return self._part(rows[index])
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index = index % len(self)
        return self._entry(index if self._rows is None else int(self._rows[index]))

    def __iter__(self) -> Iterator[ShardEntry]:
        return (self[index] for index in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(a == b for a, b in zip(self, other))

    __hash__ = None  # type: ignore[assignment]

    def _entry(self, row: int) -> ShardEntry:
        """Return the entry of a row; its path stays inside the dataset.

        Raises:
            DamagedDatasetError: it does not.
        """
        numbers = {name: int(self._columns.array(name)[row]) for name in ("clips", "size_bytes", "columns_bytes")}
        hashes = {name: self._columns.array(name)[row].tobytes().hex() for name in _HASHES}
        try:
            path = self._columns.ragged("path").text(row)
            if not InsideDataset().accepts(path):
                raise SchemaError(f"shards[{row}].path is {path[:60]!a}; it must be {InsideDataset()}")
        except SchemaError as error:
            raise damaged_file(self._url, self._path, str(error)) from None
        split = self._splits[int(self._columns.array("split")[row])]
        entry: Any = {"path": path, "split": split, "index": index_path(path), **numbers, **hashes}
        checked: ShardEntry = entry
        return checked

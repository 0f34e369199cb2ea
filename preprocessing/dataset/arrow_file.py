"""Arrow IPC files of one record batch: written from NumPy arrays, and read from foreign bytes without trusting them.

pyarrow takes the container apart; values are read from its buffers with NumPy, after a check of their lengths, so that
no foreign offset is followed unchecked. Whatever `encode` does not write is refused before it is used: dictionaries,
compressed buffers (which could unpack to any size), validity bitmaps, metadata (which is where extension types are
named), and other types. Nothing is copied: arrays are views of the mapped file, which all processes of a machine share.
"""

import functools
import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.extras import require
from cluster.storage import api as storage
from preprocessing.dataset.schema import SchemaError

MAX_METADATA = 2**22
"""Largest accepted schema of a file, in bytes; a column takes about a hundred."""
HASH_BYTES = 32

Array = NDArray[Any]
Kinds = dict[str, str]
"""Column -> kind: the name of an Arrow type of numbers, `hash` (32 bytes), `text`, `bytes`, or `numbers` (a list of
float64 in each row)."""

_MAGIC, _END_OF_BATCHES = b"ARROW1\0\0", b"\xff\xff\xff\xff\0\0\0\0"
_NUMBERS = ("uint8", "int32", "uint32", "int64", "uint64", "float64")
_COMPRESSION_SLOT = 4 + 2 * 3
"""Offset of the fourth field in a vtable of the format: that of RecordBatch.compression."""
_HEADER_SLOT = 4 + 2 * 2
"""The third: that of Message.header."""


class Ragged:
    """A column whose rows differ in length: row i is `values[offsets[i] : offsets[i + 1]]`."""

    def __init__(self, offsets: NDArray[np.int32], values: Array) -> None:
        self.offsets, self.values = offsets, values

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, number: int) -> Array:
        """Return a row, as a view."""
        values: Array = self.values[int(self.offsets[number]) : int(self.offsets[number + 1])]
        return values

    def text(self, number: int) -> str:
        """Return a row of UTF-8.

        Raises:
            SchemaError: it is something else.
        """
        try:
            return self.row(number).tobytes().decode()
        except UnicodeDecodeError:
            raise SchemaError("is not UTF-8 text") from None


Column = Array | Ragged


@functools.cache
def pyarrow() -> ModuleType:
    """Return the library, imported when a dataset of format 3 is read or written.

    Raises:
        UserError: it is not installed.
    """
    require("pyarrow")
    import pyarrow

    return pyarrow  # type: ignore[no-any-return]


def ragged(rows: list[bytes]) -> Ragged:
    """Return texts as a column."""
    offsets = np.cumsum([0, *map(len, rows)])
    if offsets[-1] > np.iinfo(np.int32).max:
        raise SchemaError(f"has {offsets[-1]:,} bytes of text, more than a file can hold; lower shards.target_mb")
    return Ragged(offsets.astype(np.int32), np.frombuffer(b"".join(rows), dtype=np.uint8))


def encode(columns: Mapping[str, Column], kinds: Kinds) -> bytes:
    """Return the bytes of a file with the given columns; they depend on those and on the version of pyarrow alone."""
    pa = pyarrow()
    schema = pa.schema([pa.field(name, _types()[kind], nullable=False) for name, kind in kinds.items()])
    arrays = [_array(pa, columns[name], _types()[kind], kind) for name, kind in kinds.items()]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
    data: bytes = sink.getvalue().to_pybytes()
    return data


@functools.cache
def _types() -> dict[str, Any]:
    pa = pyarrow()
    return {
        **{name: getattr(pa, name)() for name in _NUMBERS},
        "hash": pa.binary(HASH_BYTES),
        "text": pa.utf8(),
        "bytes": pa.binary(),
        "numbers": pa.list_(pa.field("item", pa.float64(), nullable=False)),
    }


@functools.cache
def _kind_of() -> dict[Any, str]:
    return {kind: name for name, kind in _types().items()}


def _array(pa: ModuleType, column: Column, kind: Any, name: str) -> Any:
    rows = len(column)
    if not isinstance(column, Ragged):
        values = np.ascontiguousarray(column, dtype=np.uint8 if name == "hash" else np.dtype(name))
        return pa.Array.from_buffers(kind, rows, [None, pa.py_buffer(values)])
    offsets = pa.py_buffer(np.ascontiguousarray(column.offsets, dtype=np.int32))
    if name != "numbers":
        return pa.Array.from_buffers(kind, rows, [None, offsets, pa.py_buffer(np.ascontiguousarray(column.values))])
    values = np.ascontiguousarray(column.values, dtype=np.float64)
    inner = pa.Array.from_buffers(pa.float64(), len(values), [None, pa.py_buffer(values)])
    return pa.Array.from_buffers(kind, rows, [None, offsets], children=[inner])


def map_file(path: str | Path, limit: int) -> mmap.mmap | bytes:
    """Return the content of a local file as mapped memory.

    Raises:
        SchemaError: it is longer than `limit` bytes.
        StorageError: it is no regular file.
        OSError: it cannot be opened.
    """
    with storage.open_file(path) as file:
        size = file.seek(0, 2)
        if size > limit:
            raise SchemaError(f"has more than {limit:,} bytes, which is the limit")
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""


class Columns:
    """The columns of a file; each is checked when it is first used."""

    def __init__(self, batch: Any, kinds: Kinds) -> None:
        self._batch, self.kinds, self.rows = batch, kinds, int(batch.num_rows)
        self._numbers = {name: number for number, name in enumerate(kinds)}
        self._known: dict[str, Column] = {}

    def array(self, name: str) -> Array:
        """Return a column of numbers, or of hashes as uint8 [N, 32].

        Raises:
            SchemaError: its values do not lie within the file.
        """
        column = self._column(name)
        assert not isinstance(column, Ragged)
        return column

    def ragged(self, name: str) -> Ragged:
        """Return a column whose rows differ in length. Raise SchemaError if they do not lie within the file."""
        column = self._column(name)
        assert isinstance(column, Ragged)
        return column

    def _column(self, name: str) -> Column:
        if name not in self._known:
            array = self._batch.column(self._numbers[name])
            self._known[name] = _column(array, self.kinds[name], self.rows, name)
        return self._known[name]


def decode(data: mmap.mmap | bytes, kinds: Kinds | None = None) -> Columns:
    """Return the columns of a file, as views of `data`; they must be those of `kinds`, if given.

    Raises:
        SchemaError: it is no file that `encode` could have written.
    """
    pa = pyarrow()
    if data[: len(_MAGIC)] != _MAGIC or data[-6:] != _MAGIC[:6] or len(data) < 3 * len(_MAGIC):
        raise SchemaError("is not an Arrow file, or is cut short")
    source = pa.BufferReader(pa.py_buffer(data))
    source.seek(len(_MAGIC))
    try:
        message = _message(pa, source, "schema")
        if b"ARROW:" in memoryview(message.metadata).tobytes():
            raise SchemaError("has metadata, which the format does not have")
        schema = pa.ipc.read_schema(message)
        found = _kinds(schema)
        if kinds is not None and list(found.items()) != list(kinds.items()):
            raise SchemaError(f"has the columns {_shown(found)}; they must be {_shown(kinds)}")
        message = _message(pa, source, "record batch")
        if _is_compressed(memoryview(message.metadata)):
            raise SchemaError("has compressed columns; they must not be")
        if source.read(len(_END_OF_BATCHES)) != _END_OF_BATCHES:
            raise SchemaError("has more than one record batch")
        batch = pa.ipc.read_record_batch(message, schema)
        return Columns(batch, found)
    except SchemaError:
        raise
    except (pa.ArrowException, OSError, EOFError, ValueError, struct.error) as error:
        raise SchemaError(f"is not an Arrow file ({' '.join(str(error).split())[:200]})") from None


def _shown(kinds: Kinds) -> str:
    return ", ".join(f"{name:.60} {kind}" for name, kind in list(kinds.items())[:40])


def _message(pa: ModuleType, source: Any, kind: str) -> Any:
    """Return the next message, whose parts are views of the file."""
    here = source.tell()
    marker, length = struct.unpack("<II", source.read(8))
    if marker != 0xFFFFFFFF or length > MAX_METADATA:
        raise SchemaError(f"has a {kind} of {length:,} bytes; it must have at most {MAX_METADATA:,}")
    source.seek(here)
    message = pa.ipc.read_message(source)
    if message.type != kind:
        raise SchemaError(f"has a {message.type} in the place of its {kind}")
    return message


def _is_compressed(metadata: memoryview) -> bool:
    """Return whether the metadata of a record batch says that its buffers are compressed; pyarrow does not tell."""

    def number(kind: str, at: int) -> int:
        return int(struct.unpack_from(kind, metadata, at)[0])

    def slot(table: int, offset: int) -> int:
        vtable = table - number("<i", table)
        return number("<H", vtable + offset) if offset < number("<H", vtable) else 0

    table = number("<I", 0)
    header = table + slot(table, _HEADER_SLOT)
    return slot(header + number("<I", header), _COMPRESSION_SLOT) != 0


def _kinds(schema: Any) -> Kinds:
    kinds: Kinds = {}
    if schema.metadata or any(field.metadata for field in schema):
        raise SchemaError("has metadata, which the format does not have")
    for field in schema:
        kind = _kind_of().get(field.type)
        if kind is None:
            raise SchemaError(
                f"has a column {field.name:.60} of type {field.type!s:.60}, which the format does not have"
            )
        if field.name in kinds:
            raise SchemaError(f"has two columns {field.name:.60}")
        kinds[field.name] = kind
    return kinds


def _column(array: Any, kind: str, rows: int, name: str) -> Column:
    """Return the values of a column, after a check that they lie within its buffers."""
    validity, *buffers = array.buffers()
    if validity is not None or array.offset:
        raise SchemaError(f"has missing values in column {name:.60}")
    if kind in _NUMBERS or kind == "hash":
        width = HASH_BYTES if kind == "hash" else 1
        values = _values(buffers[0], "uint8" if kind == "hash" else kind, rows * width, name)
        return values.reshape(rows, HASH_BYTES) if kind == "hash" else values
    offsets = _values(buffers[0], "int32", rows + 1 if rows else 0, name)
    if not rows:
        return Ragged(np.zeros(1, dtype=np.int32), np.zeros(0, dtype=np.float64 if kind == "numbers" else np.uint8))
    if offsets[0] != 0 or bool((np.diff(offsets) < 0).any()):
        raise SchemaError(f"has rows of column {name:.60} that are not one after the other")
    if kind == "numbers" and buffers[1] is not None:
        raise SchemaError(f"has missing values in column {name:.60}")
    item = "float64" if kind == "numbers" else "uint8"
    return Ragged(offsets, _values(buffers[-1], item, int(offsets[-1]), name))


def _values(buffer: Any, kind: str, count: int, name: str) -> Array:
    dtype = np.dtype(kind)
    if count and (buffer is None or buffer.size < count * dtype.itemsize):
        raise SchemaError(f"has fewer values in column {name:.60} than rows")
    return np.frombuffer(buffer, dtype=dtype, count=count) if count else np.zeros(0, dtype=dtype)

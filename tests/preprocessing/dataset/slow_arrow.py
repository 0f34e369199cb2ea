"""A second reader of Arrow files, byte by byte from their specification: slow, for valid files, without pyarrow."""

import itertools
import struct
from typing import Any, NamedTuple

TYPES = {2: "int", 3: "float", 4: "bytes", 5: "text", 12: "list", 15: "fixed"}


class Table:
    """A table of a flatbuffer."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at
        self.vtable = at - struct.unpack_from("<i", data, at)[0]

    def field(self, number: int) -> int | None:
        """Return the position of a field; None if it has its default."""
        size = struct.unpack_from("<H", self.data, self.vtable)[0]
        offset = struct.unpack_from("<H", self.data, self.vtable + 4 + 2 * number)[0] if 4 + 2 * number < size else 0
        return self.at + offset if offset else None

    def number(self, number: int, form: str, default: int = 0) -> int:
        at = self.field(number)
        return default if at is None else int(struct.unpack_from(form, self.data, at)[0])

    def follow(self, number: int) -> int:
        at = self.field(number)
        assert at is not None
        return at + int(struct.unpack_from("<I", self.data, at)[0])

    def table(self, number: int) -> "Table":
        return Table(self.data, self.follow(number))

    def vector(self, number: int) -> tuple[int, int]:
        """Return the number of elements of a vector, and the position of the first."""
        if self.field(number) is None:
            return 0, 0
        at = self.follow(number)
        return int(struct.unpack_from("<I", self.data, at)[0]), at + 4

    def tables(self, number: int) -> list["Table"]:
        count, at = self.vector(number)
        places = [at + 4 * element for element in range(count)]
        return [Table(self.data, place + struct.unpack_from("<I", self.data, place)[0]) for place in places]

    def text(self, number: int) -> str:
        at = self.follow(number)
        length = struct.unpack_from("<I", self.data, at)[0]
        return self.data[at + 4 : at + 4 + length].decode()


class Field(NamedTuple):
    """A column."""

    name: str
    kind: str
    width: int
    is_signed: bool
    children: list[Any]


def _field(table: Table) -> Field:
    kind = TYPES[table.number(2, "<B")]
    about = table.table(3)
    width = about.number(0, "<i") // (8 if kind == "int" else 1) if kind in ("int", "fixed") else 8
    is_signed = kind == "int" and bool(about.number(1, "<B"))
    return Field(table.text(0), kind, width, is_signed, [_field(child) for child in table.tables(5)])


def read(data: bytes) -> dict[str, list[Any]]:
    """Return the columns of an Arrow file of one record batch, as Python values."""
    assert data[:8] == b"ARROW1\0\0"
    assert data[-6:] == b"ARROW1"
    length = struct.unpack_from("<i", data, len(data) - 10)[0]
    footer_data = data[len(data) - 10 - length : len(data) - 10]
    footer = Table(footer_data, struct.unpack_from("<I", footer_data)[0])
    fields = [_field(table) for table in footer.table(1).tables(1)]
    count, at = footer.vector(3)
    assert count == 1
    offset, metadata, _body = struct.unpack_from("<qi4xq", footer_data, at)
    message_data = data[offset + 8 : offset + metadata]
    batch = Table(message_data, struct.unpack_from("<I", message_data)[0]).table(2)
    rows, places = batch.number(0, "<q"), iter(_pairs(batch, 2))
    lengths = iter(_pairs(batch, 1))
    body = data[offset + metadata :]
    return {field.name: _values(field, rows, body, places, lengths) for field in fields}


def _pairs(batch: Table, number: int) -> list[tuple[int, int]]:
    count, at = batch.vector(number)
    return [struct.unpack_from("<qq", batch.data, at + 16 * element) for element in range(count)]


def _values(field: Field, rows: int, body: bytes, places: Any, lengths: Any) -> list[Any]:
    assert next(lengths) == (rows, 0)
    assert next(places)[1] == 0, "there is a validity bitmap"

    def buffer() -> bytes:
        offset, length = next(places)
        return body[offset : offset + length]

    if field.kind == "fixed":
        data = buffer()
        return [data[field.width * row :][: field.width] for row in range(rows)]
    if field.kind in ("int", "float"):
        letter = "d" if field.kind == "float" else {1: "b", 4: "i", 8: "q"}[field.width]
        if field.kind == "int" and not field.is_signed:
            letter = letter.upper()
        return list(struct.unpack_from(f"<{rows}{letter}", buffer()))
    data = buffer()
    offsets = struct.unpack_from(f"<{rows + 1}i", data) if rows else (0,)
    if field.kind == "list":
        (item,) = field.children
        values: Any = _values(item, offsets[-1], body, places, lengths)
    else:
        values = buffer()
    found = [values[begin:end] for begin, end in itertools.pairwise(offsets)]
    return [row.decode() for row in found] if field.kind == "text" else found

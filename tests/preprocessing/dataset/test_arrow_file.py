"""Arrow files: what was written is read, by a second reader too, and whatever else a file may hold is refused."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import extras
from cluster.errors import UserError
from cluster.storage.errors import StorageError
from preprocessing.dataset import arrow_file
from preprocessing.dataset.arrow_file import Column, Columns, Kinds, Ragged, decode, encode, map_file, ragged
from preprocessing.dataset.errors import damaged_file
from preprocessing.dataset.schema import SchemaError
from tests.preprocessing.dataset import slow_arrow
from tests.property_settings import examples, names

INTEGERS = {"uint8": (0, 2**8), "int32": (-(2**31), 2**31), "uint32": (0, 2**32), "int64": (-(2**63), 2**63),
            "uint64": (0, 2**64)}  # fmt: skip
FINITE = st.floats(allow_nan=False)


def rows_of(kind: str, count: int) -> st.SearchStrategy[list[Any]]:
    """Return values of a column, as Python has them."""
    if kind in INTEGERS:
        low, high = INTEGERS[kind]
        values: st.SearchStrategy[Any] = st.integers(low, high - 1)
    else:
        values = {
            "float64": FINITE, "hash": st.binary(min_size=32, max_size=32), "text": names(),
            "bytes": st.binary(max_size=9),
            "numbers": st.lists(FINITE, max_size=4),
        }[kind]  # fmt: skip
    return st.lists(values, min_size=count, max_size=count)


def column_of(kind: str, rows: list[Any]) -> Column:
    if kind == "hash":
        return np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(rows), 32)
    if kind in ("text", "bytes"):
        return ragged([row.encode() if kind == "text" else row for row in rows])
    if kind == "numbers":
        offsets = np.cumsum([0, *map(len, rows)]).astype(np.int32)
        return Ragged(offsets, np.array([value for row in rows for value in row], dtype=np.float64))
    return np.array(rows, dtype=kind)


def rows_in(columns: Columns, name: str) -> list[Any]:
    """Return a column of a file as Python has it."""
    kind = columns.kinds[name]
    if kind == "hash":
        return [row.tobytes() for row in columns.array(name)]
    if kind in INTEGERS or kind == "float64":
        return columns.array(name).tolist()
    found = columns.ragged(name)
    if kind == "text":
        return [found.text(row) for row in range(len(found))]
    return [found.row(row).tolist() if kind == "numbers" else found.row(row).tobytes() for row in range(len(found))]


@st.composite
def files(draw: st.DrawFn) -> tuple[Kinds, dict[str, list[Any]]]:
    kinds = draw(st.dictionaries(names(), st.sampled_from([*INTEGERS, "float64", "hash", "text", "bytes", "numbers"]),
                                 min_size=1, max_size=6))  # fmt: skip
    count = draw(st.integers(0, 5))
    return kinds, {name: draw(rows_of(kind, count)) for name, kind in kinds.items()}


@examples(60)
@given(files())
def test_what_was_written_is_read_and_the_bytes_depend_on_it_alone(file: tuple[Kinds, dict[str, list[Any]]]) -> None:
    kinds, rows = file
    data = encode({name: column_of(kinds[name], column) for name, column in rows.items()}, kinds)
    found = decode(data, kinds)
    assert found.kinds == kinds
    assert found.rows == len(next(iter(rows.values())))
    assert {name: rows_in(found, name) for name in kinds} == rows
    assert encode({name: column_of(kinds[name], column) for name, column in rows.items()}, kinds) == data


@examples(40)
@given(files())
def test_a_second_reader_and_pyarrow_find_the_same(file: tuple[Kinds, dict[str, list[Any]]]) -> None:
    kinds, rows = file
    data = encode({name: column_of(kinds[name], column) for name, column in rows.items()}, kinds)
    assert slow_arrow.read(data) == rows
    table = pa.ipc.open_file(data).read_all()
    table.validate(full=True)
    assert {name: table[number].to_pylist() for number, name in enumerate(kinds)} == rows


def good() -> bytes:
    columns: dict[str, Column] = {
        "n": np.arange(3),
        "t": ragged([b"a", b"bc", b""]),
        "l": column_of("numbers", [[1.0], [], [2.0]]),
    }
    return encode(columns, {"n": "int64", "t": "text", "l": "numbers"})


def written(table: Any, **options: Any) -> bytes:
    """Return a file that pyarrow writes as it is asked to."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=2)
    return bytes(sink.getvalue().to_pybytes())


def one(array: Any, **about: Any) -> bytes:
    field = pa.field("n", array.type, **about)
    return written(pa.Table.from_arrays([array], schema=pa.schema([field])))


class Pickled(pa.ExtensionType):
    """A type whose name a file can hold, and which would be made while its schema is read."""

    made = 0

    def __init__(self) -> None:
        super().__init__(pa.int64(), "vdsm.tests.pickled")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: Any, serialized: bytes) -> "Pickled":
        cls.made += 1
        return cls()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: b"", "is not an Arrow file, or is cut short"),
        (lambda: b"ARROW1\0\0" * 9, "is not an Arrow file, or is cut short"),
        (lambda: written(pa.table({"n": pa.array([1])}), compression="zstd"), "has compressed columns"),
        (lambda: written(pa.table({"n": pa.array([1, 2, 3])})), "has more than one record batch"),
        (lambda: one(pa.array([1, None])), "has missing values in column n"),
        (lambda: one(pa.array([[1.0, None]], pa.list_(pa.field("item", pa.float64())))), "has a column n of type list"),
        (lambda: one(pa.array([1]), metadata={"ARROW:extension:name": "vdsm.tests.pickled"}), "has metadata"),
        (lambda: one(pa.array([1]), metadata={"a": "b"}), "has metadata"),
        (lambda: written(pa.table({"n": [1]}).replace_schema_metadata({"pandas": "{}"})), "has metadata"),
        (lambda: one(pa.array(["a", "b"]).dictionary_encode()), "has a column n of type dictionary"),
        (lambda: one(pa.array([1.5], pa.float32())), "has a column n of type float"),
        (lambda: one(pa.array([{"a": 1}])), "has a column n of type struct"),
        (lambda: one(pa.array(["a"], pa.large_utf8())), "has a column n of type large_string"),
        (lambda: written(pa.Table.from_arrays([pa.array([1])] * 2, names=["n", "n"])), "has two columns n"),
        (lambda: one(pa.array([1], pa.uint32())), "has the columns n uint32; they must be n int64"),
    ],
)  # fmt: skip
def test_what_the_format_does_not_have_is_refused(make: Callable[[], bytes], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        decode(make(), {"n": "int64"}).array("n")


def test_no_type_of_an_extension_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pickled, "made", 0)
    pa.register_extension_type(Pickled())
    try:
        data = one(pa.ExtensionArray.from_storage(Pickled(), pa.array([1])))
        with pytest.raises(SchemaError, match="has metadata"):
            decode(data)
        assert Pickled.made == 0
        assert pa.ipc.open_file(data).schema.field("n").type == Pickled()  # which pyarrow alone does
        assert Pickled.made
    finally:
        pa.unregister_extension_type("vdsm.tests.pickled")


def test_any_changed_byte_gives_other_values_or_a_clear_error() -> None:
    data, random = good(), Random(3)
    messages = []
    for _ in range(600):
        changed = bytearray(data)
        for _ in range(random.choice((1, 2, 8))):
            changed[random.randrange(len(changed))] = random.choice((0, 1, 127, 255, random.randrange(256)))
        try:
            columns = decode(bytes(changed))
            for name in columns.kinds:
                rows_in(columns, name)
        except SchemaError as error:
            messages.append(str(damaged_file("data", "shards.arrow", str(error))))
    assert len(messages) > 100
    assert all(message.isprintable() and len(message) < 3000 for message in messages)


def test_offsets_that_lead_out_of_the_file_are_refused() -> None:
    data = good()
    offsets = np.array([0, 1, 3, 3], dtype="<i4").tobytes()
    assert data.count(offsets) == 1
    for wrong in ([0, 1, 10**6, 10**6], [0, -1, 3, 3], [1, 1, 3, 3], [0, 3, 1, 3]):
        columns = decode(data.replace(offsets, np.array(wrong, dtype="<i4").tobytes()))
        with pytest.raises(SchemaError, match="column t"):
            columns.ragged("t")


def test_a_file_is_mapped_and_its_arrays_are_views_of_it(tmp_path: Path) -> None:
    (tmp_path / "a.arrow").write_bytes(good())
    data = map_file(tmp_path / "a.arrow", 10**6)
    values = decode(data).array("n")
    assert not values.flags.owndata
    assert not values.flags.writeable
    assert values.tolist() == [0, 1, 2]
    with pytest.raises(SchemaError, match="has more than 10 bytes, which is the limit"):
        map_file(tmp_path / "a.arrow", 10)
    with pytest.raises(StorageError, match="not a regular file"):
        map_file("/dev/null", 10)


def test_without_the_library_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda module: None)
    arrow_file.pyarrow.cache_clear()
    try:
        with pytest.raises(UserError, match=r"this needs pyarrow, .*pip install 'vdsm-pipeline\[data\]'"):
            decode(good())
    finally:
        arrow_file.pyarrow.cache_clear()

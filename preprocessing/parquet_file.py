"""Parquet files with videos, as data sets on the Hugging Face Hub have them: a row holds the bytes of a video.

Only the format is read, by pyarrow; no code of a data set is run, and nothing is unpickled. pyarrow parses foreign
bytes in C++, so that files of strangers belong into the sandbox (`preprocessing.sources.huggingface` reads them there).
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from cluster.errors import UserError, first_line
from cluster.extras import require
from cluster.storage import api as storage
from cluster.storage import os_errors

MAX_ROWS, MAX_TEXT = 2_000_000, 1000
"""Most rows of a file, and longest value of a label in characters."""
_BATCH_ROWS = 8


class DamagedRowError(Exception):
    """A row cannot be read; the message is a short reason."""


class Row(NamedTuple):
    """A video: its bytes, or the path of its file below the folder of the data set."""

    data: bytes | None
    path: str | None


class ParquetFile:
    """A file that is open for reading.

    Args:
        path: the file.

    Raises:
        UserError: it is no Parquet file, or pyarrow is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        require("pyarrow")
        import pyarrow
        import pyarrow.parquet

        self._path = path
        try:
            storage.open_file(path).close()  # refuses a pipe, which would block
        except OSError as error:
            os_errors.explain(path, error)
        try:
            self._file = pyarrow.parquet.ParquetFile(path, memory_map=False, buffer_size=1 << 20, pre_buffer=False)
            self._schema = self._file.schema_arrow
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read as Parquet ({first_line(error):.100})") from None
        if not 0 <= self._file.metadata.num_rows <= MAX_ROWS:
            raise UserError(f"{path}: has {self._file.metadata.num_rows} rows; at most {MAX_ROWS} are accepted")

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self._file.metadata.num_rows)

    def video_column(self, wanted: str | None) -> str:
        """Return the column with the videos: `wanted`, or the only one whose type allows it.

        Raises:
            UserError: there is none, or there are several.
        """
        import pyarrow

        found = [
            field.name for field in self._schema
            if pyarrow.types.is_binary(field.type) or pyarrow.types.is_large_binary(field.type)
            or (pyarrow.types.is_struct(field.type) and "bytes" in {field.type.field(i).name for i in
                range(field.type.num_fields)})
        ]  # fmt: skip
        if wanted in found or (wanted is None and len(found) == 1):
            return wanted or found[0]
        fault = f"has no column of videos {wanted}" if wanted else "which column has the videos is unclear"
        raise UserError(
            f"{self._path}: {fault}; set --source.huggingface.column to one of: "
            f"{', '.join(found) or 'none, there are no bytes'}"
        )

    def labels(self, columns: list[str]) -> dict[str, list[str]]:
        """Return columns as text, a number of a class by the name that the data set gives it.

        Raises:
            UserError: a column is missing, its values are no text or number, or one is too long.
        """
        import pyarrow

        names = self._schema.names
        if missing := [column for column in columns if column not in names]:
            raise UserError(f"{self._path}: has no column {missing[0]:.60}; it has {', '.join(names)[:300]}")
        try:
            table = self._file.read(columns=columns)
            found = {column: table.column(column).to_pylist() for column in columns}
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise UserError(f"{self._path}: its labels cannot be read ({first_line(error):.100})") from None
        classes = self._classes()
        return {column: [self._text(column, value, classes.get(column)) for value in found[column]] for column in found}

    def _text(self, column: str, value: object, names: list[str] | None) -> str:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise UserError(
                f"{self._path}: column {column:.60} has a {type(value).__name__}; labels are text or numbers"
            )
        if names is not None and isinstance(value, int):
            if not 0 <= value < len(names):
                raise UserError(f"{self._path}: column {column:.60} has {value}, but there are {len(names)} classes")
            return names[value]
        if len(text := str(value)) > MAX_TEXT:
            raise UserError(f"{self._path}: a value of column {column:.60} has more than {MAX_TEXT} characters")
        return text

    def _classes(self) -> dict[str, list[str]]:
        """Return the names of classes by column, of the metadata that `datasets` writes."""
        try:
            stated = json.loads((self._schema.metadata or {}).get(b"huggingface", b"{}"))
            features = stated.get("info", {}).get("features", {})
            return {
                str(column): [str(name)[:MAX_TEXT] for name in feature["names"]]
                for column, feature in features.items()
                if isinstance(feature, dict) and isinstance(feature.get("names"), list)
            }
        except (ValueError, TypeError, AttributeError, RecursionError):
            return {}

    def row(self, column: str, number: int) -> Row:
        """Return the video of a row. The rows before it in its group are read and dropped.

        Raises:
            DamagedRowError: it cannot be read, or has neither bytes nor a path.
        """
        import pyarrow

        group = first = 0
        sizes = [self._file.metadata.row_group(index).num_rows for index in range(self._file.num_row_groups)]
        while group < len(sizes) and number >= first + sizes[group]:
            first += sizes[group]
            group += 1
        try:
            for batch in self._file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[column]):
                if number < first + batch.num_rows:
                    return _row(batch.column(0)[number - first].as_py())
                first += batch.num_rows
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise DamagedRowError(f"{first_line(error):.100}") from None
        raise DamagedRowError("it is not in the file")


def _row(value: Any) -> Row:
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if isinstance(data, bytes):
        return Row(data, None)
    if isinstance(path, str) and path:
        return Row(None, path)
    raise DamagedRowError("it has neither the bytes nor the path of a video")

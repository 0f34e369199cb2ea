"""What is known of an input: from the folders it lies in, from its name, and from a sidecar file."""

import csv
import io
import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

from cluster.errors import UserError
from cluster.storage import api as storage
from preprocessing.decoding.transform import Crop
from preprocessing.sources.config import LabelsConfig

IDENTITY, SPLIT = "identity", "split"
_CROP = ("left", "top", "width", "height")
_TIMES = ("start_s", "end_s")
_KNOWN = re.compile(r"[A-Za-z_][A-Za-z0-9_ -]*")


@dataclass(frozen=True, slots=True)
class InputPart:
    """A part of an input in which the same is to be seen; most inputs are one part from beginning to end."""

    labels: dict[str, str]
    """Names of all labels, `identity` and `split` included, with their values as they were written."""
    crop: Crop | None = None
    start_s: float = 0.0
    end_s: float | None = None


@dataclass(frozen=True)
class LabelReader:
    """Reads what the settings point at.

    Raises:
        UserError: a wrong pattern or sidecar, named with its line or row.
    """

    config: LabelsConfig
    rows: dict[str, list[InputPart]] = field(default_factory=dict)
    """Path to what the sidecar says of it."""
    names: tuple[str, ...] = ()
    """All labels, without `identity` and `split`."""
    sidecar: bytes = b""
    """Its content."""
    inside: dict[str, dict[str, str]] = field(default_factory=dict)
    """Path to what the file itself says."""
    faults: dict[str, str] = field(default_factory=dict)
    """Path to why an input is bad, where that is known already."""

    def parts(self, name: str) -> list[InputPart]:
        """What is known of the input with this path below the source's.

        Raises:
            ValueError: nothing is, where something should be; the message is a short reason, the same for all inputs.
        """
        if name in self.faults:
            raise ValueError(self.faults[name])
        known = dict(self.inside.get(name, {}))
        folders = name.split("/")[:-1]
        wanted = self.config.folders
        if len(folders) < len(wanted):
            raise ValueError(f"it does not lie in {len(wanted)} folders, as labels.folders says")
        known.update((label, folder) for label, folder in zip(wanted, folders) if label != "_")
        if self.config.pattern is not None:
            match = re.search(self.config.pattern, name)
            if match is None:
                raise ValueError("its path does not match labels.pattern")
            known.update((label, value) for label, value in match.groupdict().items() if value is not None)
        if self.config.sidecar is None:
            return [InputPart(known)]
        rows = self.rows.get(name)
        if rows is None:
            raise ValueError("it has no row in labels.sidecar")
        return [InputPart(known | row.labels, row.crop, row.start_s, row.end_s) for row in rows]


def read_labels(config: LabelsConfig, inside: tuple[str, ...] = ()) -> LabelReader:
    """Check pattern and names, and read the sidecar.

    Args:
        inside: labels that the files themselves tell.

    Raises:
        UserError: as told in `LabelReader`.
    """
    groups: dict[str, int] = {}
    if config.pattern is not None:
        try:
            groups = dict(re.compile(config.pattern).groupindex)
        except re.error as error:
            raise UserError(f"labels.pattern {config.pattern!r} is not a regular expression: {error}") from None
        if not groups:
            raise UserError(f"labels.pattern {config.pattern!r} has no named group such as (?P<identity>[a-z]+)")
    rows: dict[str, list[InputPart]] = {}
    columns: tuple[str, ...] = ()
    data = b""
    if config.sidecar is not None:
        data = storage.read_bytes(config.sidecar)
        rows, columns = _read_sidecar(config.sidecar, data)
    names = [*inside, *(name for name in config.folders if name != "_"), *groups, *columns]
    for name in names:
        if not _KNOWN.fullmatch(name):
            raise UserError(f"a label is called {name!r}; names are made of letters, digits, _, - and spaces")
    missing = set(config.numbers) - set(names)
    if missing:
        raise UserError(
            f"labels.numbers names {min(missing)}, but no label is called so; labels are {sorted(set(names))}"
        )
    return LabelReader(
        config, rows, tuple(name for name in dict.fromkeys(names) if name not in (IDENTITY, SPLIT)), data
    )


def _read_sidecar(path: str, data: bytes) -> tuple[dict[str, list[InputPart]], tuple[str, ...]]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; a sidecar is CSV or JSON") from None
    table = _from_json(path, text) if path.endswith(".json") else _from_csv(path, text)
    rows: dict[str, list[InputPart]] = {}
    columns: dict[str, None] = {}
    for number, row in enumerate(table, 1):
        name = row.pop("path", "").strip()
        if not name:
            raise UserError(
                f"{path}, row {number}: it has no path; a sidecar has a column `path` with the input's path"
            )
        labels = {key: value for key, value in row.items() if key not in (*_CROP, *_TIMES)}
        if columns and columns.keys() != labels.keys():
            odd = min(columns.keys() ^ labels.keys())
            raise UserError(f"{path}, row {number}: {odd} is not in all rows; every row has the same labels")
        empty = next((key for key, value in labels.items() if not value), None)
        if empty is not None:
            raise UserError(f"{path}, row {number} ({name}): {empty} is empty")
        columns.update(dict.fromkeys(labels))
        rows.setdefault(name, []).append(_part(f"{path}, row {number} ({name})", row, labels))
    if not rows:
        raise UserError(f"{path} has no rows")
    return rows, tuple(columns)


def _part(where: str, row: dict[str, str], labels: dict[str, str]) -> InputPart:
    box = [row.get(name, "") for name in _CROP]
    if any(box) and not all(box):
        raise UserError(f"{where}: a crop box needs left, top, width and height")
    left, top, width, height = (
        (number(where, name, value) for name, value in zip(_CROP, box)) if all(box) else (0.0,) * 4
    )
    if all(box) and (width < 1 or height < 1):
        raise UserError(f"{where}: the crop box is {width:g} x {height:g} pixels")
    start = number(where, "start_s", row["start_s"]) if row.get("start_s") else 0.0
    end = number(where, "end_s", row["end_s"]) if row.get("end_s") else None
    if end is not None and end <= start:
        raise UserError(f"{where}: end_s is {end:g}, which is not after start_s, {start:g}")
    return InputPart(labels, (left, top, width, height) if all(box) else None, start, end)


def number(where: str, name: str, text: str) -> float:
    """UserError if `text` is no finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where}: {name} is {text!r}, which is not a number")
    return value


def _from_csv(path: str, text: str) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        table = [dict(row) for row in reader]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}") from None
    if "path" not in (reader.fieldnames or []):
        raise UserError(f"{path}: the first line must name the columns, one of them `path`; it is {text[:60]!r}")
    for number, row in enumerate(table, 1):
        if None in row or None in row.values():
            raise UserError(f"{path}, row {number}: it has more or fewer fields than the header")
    return [{key.strip(): value.strip() for key, value in row.items()} for row in table]


def _from_json(path: str, text: str) -> list[dict[str, str]]:
    try:
        table: Any = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(table, list) or not all(isinstance(row, dict) for row in table):
        raise UserError(f'{path} must be a list of objects such as {{"path": "a.mp4", "action": "wave"}}')
    for index, row in enumerate(table, 1):
        odd = next((key for key, value in row.items() if not isinstance(value, str | int | float)), None)
        if odd is not None:
            raise UserError(f"{path}, row {index}: {odd} is {row[odd]!r:.40}; it must be a text or a number")
    return [{key: str(value) for key, value in row.items()} for row in table]

"""Read the labels of an input from its folders, from its path and from a sidecar file."""

import csv
import functools
import io
import itertools
import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.text import decode_text
from preprocessing.decoding.transform import Crop
from preprocessing.sources.config import LabelsConfig
from preprocessing.sources.names import as_text, composed

IDENTITY, SPLIT, JOINT = "identity", "split", "joint"
_DROPPED = "dropped"
_CROP = ("left", "top", "width", "height")
CROP_MOVES = "crop_moves"
_TIMES = ("start_s", "end_s")
_NO_LABELS = (*_CROP, CROP_MOVES, *_TIMES, _DROPPED)
_VALID_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_ -]{0,99}")
DROPPED_BY_USER = "dropped by labels.sidecar: "
"""How the reason begins for an input all of whose rows are dropped."""
MAX_VALUE = 1000
"""Longest value of a label, in characters."""


@dataclass(frozen=True, slots=True)
class InputPart:
    """A segment of an input with constant labels; most inputs have one segment, the whole input."""

    labels: dict[str, str]
    """Label name to value, as written by the user; includes `identity` and `split`."""
    crop: Crop | None = None
    start_s: float = 0.0
    end_s: float | None = None
    dropped: str = ""
    """Why the segment is left out; empty if it is used."""


@dataclass(frozen=True)
class LabelReader:
    """Determines the labels of each input."""

    config: LabelsConfig
    rows: dict[str, list[InputPart]] = field(default_factory=dict)
    """Path of an input -> its rows of the sidecar."""
    names: tuple[str, ...] = ()
    """Names of all labels except `identity` and `split`."""
    sidecar: bytes = b""
    """Content of the sidecar file."""
    embedded: dict[str, dict[str, str]] = field(default_factory=dict)
    """Path of an input -> the labels stored in the file itself."""
    faults: dict[str, str] = field(default_factory=dict)
    """Path of an input that is already known to be invalid -> the reason."""

    def parts(self, name: str) -> list[InputPart]:
        """Return the labelled segments of an input.

        Args:
            name: its path relative to that of the source.

        Raises:
            ValueError: a label cannot be determined; the message is a short reason, the same for all such inputs.
        """
        if name in self.faults:
            raise ValueError(self.faults[name])
        labels = {label: composed(value) for label, value in self.embedded.get(name, {}).items()}
        folders = name.split("/")[:-1]
        wanted = self.config.folders
        if len(folders) < len(wanted):
            raise ValueError(f"it does not lie in {len(wanted)} folders, as labels.folders says")
        labels.update((label, composed(as_text(folder))) for label, folder in zip(wanted, folders) if label != "_")
        if self.config.pattern is not None:
            match = re.search(self.config.pattern, composed(name)) or re.search(self.config.pattern, name)
            if match is None:
                raise ValueError("its path does not match labels.pattern")
            found = match.groupdict().items()
            labels.update((label, composed(as_text(value))) for label, value in found if value is not None)
        if self.config.sidecar is None:
            _check_values(labels)
            return [InputPart(labels)]
        rows = self.rows.get(name) or next(filter(None, map(self._composed_rows.get, forms_of(name))), None)
        if rows is None:
            raise ValueError("it has no row in labels.sidecar")
        kept = [row for row in rows if not row.dropped]
        if not kept:
            raise ValueError(f"{DROPPED_BY_USER}{rows[0].dropped}")
        for row in kept:
            _check_values(labels | row.labels)
        return [InputPart(labels | row.labels, row.crop, row.start_s, row.end_s) for row in kept]

    @functools.cached_property
    def _composed_rows(self) -> dict[str, list[InputPart]]:
        """The rows by their path with accents in composed form."""
        return {composed(path): rows for path, rows in self.rows.items()}


def forms_of(name: str) -> tuple[str, ...]:
    """Return the forms in which a sidecar may have the path of an input, beside the path itself."""
    return composed(name), as_text(name), composed(name.strip()), as_text(name.strip())


def is_label_name(name: str) -> bool:
    """Return whether a label may have this name: not that of what metrics say of all labels together."""
    return _VALID_NAME.fullmatch(name) is not None and name != JOINT


def _check_values(labels: dict[str, str]) -> None:
    """Raise ValueError for a value that cannot be stored in a dataset and read back."""
    for name, value in labels.items():
        if len(value) > MAX_VALUE:
            raise ValueError(f"its label {name} has more than {MAX_VALUE:,} characters")
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ValueError(f"its label {name} is not valid Unicode text") from None


def read_labels(config: LabelsConfig, embedded: tuple[str, ...] = ()) -> LabelReader:
    """Check the pattern and all label names, and read the sidecar.

    Args:
        embedded: names of the labels stored in the input files themselves.

    Raises:
        UserError: the pattern, a name or the sidecar is invalid; the message names the row.
    """
    groups: dict[str, int] = {}
    if config.pattern is not None:
        try:
            groups = dict(re.compile(config.pattern).groupindex)
        except re.error as error:
            raise UserError(f"labels.pattern {config.pattern!r} is not a regular expression: {error}") from None
        if not groups:
            raise UserError(f"labels.pattern {config.pattern!r} has no named group; add one like (?P<identity>[a-z]+)")
    rows: dict[str, list[InputPart]] = {}
    columns: tuple[str, ...] = ()
    data = b""
    if config.sidecar is not None:
        data = storage.read_bytes(config.sidecar)
        rows, columns = _read_sidecar(config.sidecar, data)
    names = [*embedded, *(name for name in config.folders if name != "_"), *groups, *columns]
    for name in names:
        if not is_label_name(name):
            raise UserError(
                f"invalid label name {name!r:.60}; use letters, digits, _, - and spaces, starting with a letter, "
                f"and not {JOINT!r} alone, which metrics say of all labels together"
            )
    missing = set(config.numbers) - set(names)
    if missing:
        raise UserError(
            f"labels.numbers contains {min(missing)}, which is not a label; the labels are {sorted(set(names))}"
        )
    return LabelReader(
        config, rows, tuple(name for name in dict.fromkeys(names) if name not in (IDENTITY, SPLIT)), data
    )


def _read_sidecar(path: str, data: bytes) -> tuple[dict[str, list[InputPart]], tuple[str, ...]]:
    """Return the rows of each input, and the names of the label columns."""
    try:
        text = decode_text(data)
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; a sidecar is a CSV or JSON file") from None
    table = _parse_json(path, text) if path.endswith(".json") else _parse_csv(path, text)
    rows: dict[str, list[InputPart]] = {}
    columns: dict[str, None] = {}
    for number, row in enumerate(table, 1):
        name = row.pop("path", "").strip()
        if not name:
            raise UserError(f"{path}, row {number}: no path; every row needs the path of its input in column `path`")
        labels = {key: composed(value) for key, value in row.items() if key not in _NO_LABELS}
        if columns and columns.keys() != labels.keys():
            odd = min(columns.keys() ^ labels.keys())
            raise UserError(f"{path}, row {number}: {odd} is not in all rows; every row needs the same labels")
        dropped = row.get(_DROPPED, "")
        empty = next((key for key, value in labels.items() if not value and not dropped), None)
        if empty is not None:
            raise UserError(f"{path}, row {number} ({name}): {empty} is empty")
        columns.update(dict.fromkeys(labels))
        rows.setdefault(name, []).append(_parse_part(f"{path}, row {number} ({name})", row, labels))
    if not rows:
        raise UserError(f"{path} has no rows")
    return rows, tuple(columns)


def _parse_part(where: str, row: dict[str, str], labels: dict[str, str]) -> InputPart:
    box = [row.get(name, "") for name in _CROP]
    if any(box) and not all(box):
        raise UserError(f"{where}: a crop box needs left, top, width and height")
    left, top, width, height = (
        (parse_number(where, name, value) for name, value in zip(_CROP, box)) if all(box) else (0.0,) * 4
    )
    if all(box) and (width < 1 or height < 1):
        raise UserError(f"{where}: the crop box is {width:g} x {height:g} pixels; it must be at least 1 x 1")
    start = parse_number(where, "start_s", row["start_s"]) if row.get("start_s") else 0.0
    end = parse_number(where, "end_s", row["end_s"]) if row.get("end_s") else None
    if end is not None and end <= start:
        raise UserError(f"{where}: end_s is {end:g}, which is not after start_s, {start:g}")
    moves = tuple(_parse_move(where, text) for text in row.get(CROP_MOVES, "").split())
    if moves and not all(box):
        raise UserError(f"{where}: {CROP_MOVES} needs left, top, width and height as well")
    for (before, *_), (time, *_) in itertools.pairwise(moves):
        if time <= before:
            raise UserError(f"{where}: {CROP_MOVES} has {time:g} s after {before:g} s; write them in order")
    crop = Crop(left, top, width, height, moves) if all(box) else None
    return InputPart(labels, crop, start, end, row.get(_DROPPED, ""))


def _parse_move(where: str, text: str) -> tuple[float, float, float]:
    """Return seconds, left and top of `SECONDS:LEFT:TOP`."""
    values = text.split(":")
    if len(values) != 3:
        raise UserError(f"{where}: {CROP_MOVES} holds {text!r:.60}; write SECONDS:LEFT:TOP, with spaces in between")
    time, left, top = (parse_number(where, CROP_MOVES, value) for value in values)
    return time, left, top


def parse_number(where: str, name: str, text: str) -> float:
    """Return `text` as a finite number; UserError if it is not one."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where}: {name} is {text!r:.60}, which is not a number")
    return value


def _parse_csv(path: str, text: str) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        table = [dict(row) for row in reader]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}") from None
    if "path" not in [name.strip() for name in reader.fieldnames or []]:
        raise UserError(f"{path}: the first line must name the columns, one of them `path`; it is {text[:60]!r}")
    for number, row in enumerate(table, 1):
        if None in row or None in row.values():
            raise UserError(f"{path}, row {number}: it has more or fewer fields than the header")
    return [{key.strip(): value.strip() for key, value in row.items()} for row in table]


def _parse_json(path: str, text: str) -> list[dict[str, str]]:
    try:
        table: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(table, list) or not all(isinstance(row, dict) for row in table):
        raise UserError(f'{path} must be a list of objects such as {{"path": "a.mp4", "action": "wave"}}')
    for index, row in enumerate(table, 1):
        odd = next((key for key, value in row.items() if not isinstance(value, str | int | float)), None)
        if odd is not None:
            value = row[odd]
            shown = f"a {type(value).__name__}" if isinstance(value, list | dict) else repr(value)
            raise UserError(f"{path}, row {index}: {odd:.60} is {shown}; it must be a string or a number")
    return [{key: str(value) for key, value in row.items()} for row in table]

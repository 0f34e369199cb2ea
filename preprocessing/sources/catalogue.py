"""Turn listed files into items, each with its key, labels, identity and split."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

from cluster.errors import UserError
from preprocessing.clip import SPLITS, Factors, Item, Label, RejectedInputError
from preprocessing.decoding.transform import Crop
from preprocessing.sources.labels import IDENTITY, SPLIT, InputPart, LabelReader, forms_of, parse_number
from preprocessing.sources.listing import Entry
from preprocessing.sources.names import composed, make_key, natural_key
from preprocessing.sources.splits import Splitter

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Catalogue:
    """All items of a source and the names of their labels."""

    items: list[Item]
    vocabulary: dict[str, list[str]]
    factors: Factors


@dataclass(frozen=True)
class Segment:
    """A segment of an input, with labels encoded as in its clips."""

    labels: dict[str, Label]
    start_s: Fraction = Fraction(0)
    end_s: Fraction | None = None
    crop: int = 0
    """Index of its crop box among those of the input."""


def make_catalogue(
    entries: Iterable[Entry],
    reader: LabelReader,
    *,
    seed: int,
    test_fraction: float,
    estimate_bytes: Callable[[Entry], int],
    doubts: Mapping[str, str] = MappingProxyType({}),
) -> Catalogue:
    """Label all entries and assign them to splits.

    An input whose labels cannot be determined is still listed, and rejected when it is read. It is in no draw of the
    splits, as is one in doubt.

    Args:
        estimate_bytes: estimates the size of the clips of an entry, in bytes.
        doubts: name of an entry -> why it will hardly give a clip.

    Raises:
        UserError: no input has labels, a number is invalid, or labels contradict each other.
    """
    listed = list(entries)
    values: dict[str, set[str]] = {}
    labelled, refused = _label(listed, reader, values)
    if doubts.keys() >= labelled.keys():
        doubts = {}
    splitter = Splitter(seed=seed, test_fraction=test_fraction)
    for name, (identity, wanted) in labelled.items():
        if wanted is not None or name not in doubts:
            splitter.add(identity, wanted)
    names = [name for name in values if name not in (IDENTITY, SPLIT)]
    names.sort(key=lambda name: name != "action")  # the dynamic label first
    factors: Factors = {name: "clip" for name in names if name in reader.config.numbers}
    vocabulary = {name: sorted(values[name], key=natural_key) for name in names if name not in factors}
    indices = {name: {value: index for index, value in enumerate(known)} for name, known in vocabulary.items()}
    items = []
    for entry in listed:
        name, key = entry.name, make_key(entry.name)
        if name in refused:
            group, split, detail = key, SPLITS[0], json.dumps({"refused": refused[name]})
        else:
            identity, _ = labelled[name]
            group = "" if identity == key else identity
            split, detail = splitter.split(identity), _encode_detail(name, read_parts(reader, name), indices, factors)
        items.append(
            Item(
                key=key,
                split=split,
                estimated_bytes=max(1, estimate_bytes(entry)),
                group=group,
                path=name,
                version=entry.version,
                detail=detail,
                doubt=refused.get(name) or doubts.get(name, ""),
            )
        )
    return Catalogue(items, vocabulary, factors)


def _label(
    entries: list[Entry], reader: LabelReader, values: dict[str, set[str]]
) -> tuple[dict[str, tuple[str, str | None]], dict[str, str]]:
    """Return identity and split, if set, of each entry with all labels, and why each other entry has not all.

    Args:
        values: receives all values of each label.
    """
    labelled: dict[str, tuple[str, str | None]] = {}
    refused: dict[str, str] = {}
    for entry in entries:
        try:
            parts = read_parts(reader, entry.name)
        except ValueError as error:
            refused[entry.name] = str(error)
            continue
        labelled[entry.name] = _identity_and_split(entry.name, parts)
        for part in parts:
            for label, value in part.labels.items():
                values.setdefault(label, set()).add(value)
    _check_rows(entries, reader)
    if entries and not labelled:
        name, fault = next(iter(refused.items()))
        raise UserError(f"no input has the required labels, for example {name}: {fault}; check the settings of labels")
    return labelled, refused


def _check_rows(entries: list[Entry], reader: LabelReader) -> None:
    """Warn of rows of the sidecar that match no input; raise UserError if none matches."""
    names = {form for entry in entries for form in (entry.name, *forms_of(entry.name))}
    absent = [row for row in reader.rows if row not in names and composed(row) not in names]
    if entries and len(absent) == len(reader.rows) > 0:
        row, name = _most_alike(absent, entries)
        raise UserError(
            f"no row of {reader.config.sidecar} names an input: the path of a row is {row}, that of an input {name}; "
            "write paths relative to source.path in the column `path`"
        )
    if absent:
        row, name = _most_alike(absent, entries)
        log.warning("%d rows of the sidecar match no input, for example %s; an input is %s", len(absent), row, name)


def _most_alike(rows: list[str], entries: list[Entry]) -> tuple[str, str]:
    """Return the path of a row and that of an input, where possible those that differ in their folders only."""
    inputs = {_file_name(entry.name): entry.name for entry in reversed(entries)}
    row = next((row for row in rows if _file_name(row) in inputs), rows[0])
    return row, inputs.get(_file_name(row), entries[0].name)


def _file_name(path: str) -> str:
    """Return the last part of a path, also of one from Windows, without its suffix."""
    return PurePosixPath(composed(path).replace("\\", "/")).stem.lower()


def segments_of(item: Item) -> tuple[list[Segment], tuple[Crop | None, ...]]:
    """Return the segments of an item and the crop boxes of its frames.

    Raises:
        RejectedInputError: its labels could not be determined.
    """
    if not item.detail:
        return [Segment({})], (None,)
    content = json.loads(item.detail)
    if "refused" in content:
        raise RejectedInputError(content["refused"])
    crops = content["crops"] if "crops" in content else [content["crop"]]
    segments = [
        Segment(labels, _exact_time(start), _exact_time(end), *crop) for labels, start, end, *crop in content["parts"]
    ]
    return segments, tuple(None if crop is None else Crop.of(crop[:4], *crop[4:]) for crop in crops)


def _exact_time(seconds: float | None) -> Any:
    """Return the decimal number that the user wrote, because times are compared exactly: 0.4 is 2/5, not the float."""
    return None if seconds is None else Fraction(seconds).limit_denominator(10**6)


def read_parts(reader: LabelReader, name: str) -> list[InputPart]:
    """Return the segments of an input with their labels.

    Raises:
        ValueError: a label cannot be determined; the message is a short reason.
    """
    parts = reader.parts(name)
    missing = next((label for part in parts for label in reader.names if label not in part.labels), None)
    if missing is not None:
        raise ValueError(f"its path does not tell the label {missing}")
    return parts


def _identity_and_split(name: str, parts: list[InputPart]) -> tuple[str, str | None]:
    """Return the identity of an input and the split that its labels set, if any."""
    pairs = {(part.labels.get(IDENTITY), part.labels.get(SPLIT)) for part in parts}
    if len(pairs) > 1:
        raise UserError(f"the sidecar rows of {name} differ in identity or split; an input has one of each in all rows")
    identity, split = pairs.pop()
    return identity or make_key(name), split


def _encode_detail(name: str, parts: list[InputPart], indices: dict[str, dict[str, int]], factors: Factors) -> str:
    encoded: list[list[object]] = []
    for part in parts:
        labels: dict[str, Label] = {label: indices[label][part.labels[label]] for label in indices}
        labels |= {label: parse_number(name, label, part.labels[label]) for label in factors}
        encoded.append([labels, part.start_s, part.end_s])
    crops = list(dict.fromkeys(part.crop for part in parts))
    if len(crops) > 1:
        for row, part in zip(encoded, parts):
            row.append(crops.index(part.crop))
        return json.dumps({"crops": [_plain(crop) for crop in crops], "parts": encoded}, separators=(",", ":"))
    crop = _plain(crops[0])
    if crop is None and encoded == [[{}, 0.0, None]]:
        return ""
    return json.dumps({"crop": crop, "parts": encoded}, separators=(",", ":"))


def _plain(crop: Crop | None) -> Sequence[object] | None:
    """Return a crop without its moves if it has none, as it was before there were any."""
    return crop if crop is None or crop.moves else crop[:4]

"""Turn listed files into items, each with its key, labels, identity and split."""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from cluster.errors import UserError
from preprocessing.clip import Factors, Item, Label, RejectedInputError
from preprocessing.decoding.transform import Crop
from preprocessing.sources.labels import IDENTITY, SPLIT, InputPart, LabelReader, parse_number
from preprocessing.sources.listing import Entry
from preprocessing.sources.splits import Splitter

log = logging.getLogger(__name__)

_NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9_]+")
_KEY_LETTERS = 40


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


def make_catalogue(
    entries: Iterable[Entry],
    reader: LabelReader,
    *,
    seed: int,
    test_fraction: float,
    estimate_bytes: Callable[[Entry], int],
) -> Catalogue:
    """Label all entries and assign them to splits.

    An input whose labels cannot be determined is still listed, and rejected when it is read.

    Args:
        estimate_bytes: estimates the size of the clips of an entry, in bytes.

    Raises:
        UserError: no input has labels, a number is invalid, or labels contradict each other.
    """
    listed = list(entries)
    splitter = Splitter(seed=seed, test_fraction=test_fraction)
    values = _collect_values(listed, reader, splitter)
    names = [name for name in values if name not in (IDENTITY, SPLIT)]
    names.sort(key=lambda name: name != "action")  # the dynamic label first
    factors: Factors = {name: "clip" for name in names if name in reader.config.numbers}
    vocabulary = {name: sorted(values[name], key=natural_key) for name in names if name not in factors}
    indices = {name: {value: index for index, value in enumerate(known)} for name, known in vocabulary.items()}
    items = []
    for entry in listed:
        key = make_key(entry.name)
        try:
            parts = _read_parts(reader, entry.name)
            identity, _ = _identity_and_split(entry.name, parts)
            detail = _encode_detail(entry.name, parts, indices, factors)
        except ValueError as error:
            identity, detail = key, json.dumps({"refused": str(error)})
        items.append(
            Item(
                key=key,
                split=splitter.split(identity),
                estimated_bytes=max(1, estimate_bytes(entry)),
                group="" if identity == key else identity,
                path=entry.name,
                version=entry.version,
                detail=detail,
            )
        )
    return Catalogue(items, vocabulary, factors)


def _collect_values(entries: list[Entry], reader: LabelReader, splitter: Splitter) -> dict[str, set[str]]:
    """Return all values of each label, and add every identity to `splitter`."""
    values: dict[str, set[str]] = {}
    fault, labelled = "", 0
    for entry in entries:
        try:
            parts = _read_parts(reader, entry.name)
        except ValueError as error:
            fault = f"{entry.name}: {error}"
            splitter.add(make_key(entry.name), None)
            continue
        labelled += 1
        splitter.add(*_identity_and_split(entry.name, parts))
        for part in parts:
            for name, value in part.labels.items():
                values.setdefault(name, set()).add(value)
    if entries and not labelled:
        raise UserError(f"no input has the required labels, for example {fault}; check the settings of labels")
    absent = reader.rows.keys() - {entry.name for entry in entries} if reader.rows else set()
    if absent:
        log.warning("%d rows of the sidecar match no input, for example %s", len(absent), min(absent))
    return values


def segments_of(item: Item) -> tuple[list[Segment], Crop | None]:
    """Return the segments of an item and the crop box of its frames.

    Raises:
        RejectedInputError: its labels could not be determined.
    """
    if not item.detail:
        return [Segment({})], None
    content = json.loads(item.detail)
    if "refused" in content:
        raise RejectedInputError(content["refused"])
    crop = content["crop"]
    segments = [Segment(labels, _exact_time(start), _exact_time(end)) for labels, start, end in content["parts"]]
    return segments, crop and tuple(crop)


def _exact_time(seconds: float | None) -> Any:
    """Return the decimal number that the user wrote, because times are compared exactly: 0.4 is 2/5, not the float."""
    return None if seconds is None else Fraction(seconds).limit_denominator(10**6)


def make_key(name: str) -> str:
    """Return a key that is unique to a path: the end of the path in plain letters, and a hash."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"{_NOT_IN_KEYS.sub('-', name)[-_KEY_LETTERS:].strip('-')}-{digest}"


def as_text(name: str) -> str:
    r"""Return a name as text that UTF-8 can encode: bytes of a path that are not UTF-8 become `\udcff` and so on."""
    return name.encode("utf-8", "backslashreplace").decode()


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Return a sort key that puts `2` before `10`, and numbers before words."""
    pieces = [piece for piece in re.split(r"(\d+)", text) if piece]
    return [(0, int(piece), piece) if piece.isdecimal() else (1, 0, piece) for piece in pieces]


def _read_parts(reader: LabelReader, name: str) -> list[InputPart]:
    parts = reader.parts(name)
    missing = next((label for part in parts for label in reader.names if label not in part.labels), None)
    if missing is not None:
        raise ValueError(f"its path does not tell the label {missing}")
    return parts


def _identity_and_split(name: str, parts: list[InputPart]) -> tuple[str, str | None]:
    """Return the identity of an input and the split that its labels set, if any."""
    pairs = {(part.labels.get(IDENTITY), part.labels.get(SPLIT)) for part in parts}
    if len(pairs) > 1 or len({part.crop for part in parts}) > 1:
        raise UserError(
            f"the sidecar rows of {name} differ in identity, split or crop box; an input has one of each in all rows"
        )
    identity, split = pairs.pop()
    return identity or make_key(name), split


def _encode_detail(name: str, parts: list[InputPart], indices: dict[str, dict[str, int]], factors: Factors) -> str:
    encoded: list[list[object]] = []
    for part in parts:
        labels: dict[str, Label] = {label: indices[label][part.labels[label]] for label in indices}
        labels |= {label: parse_number(name, label, part.labels[label]) for label in factors}
        encoded.append([labels, part.start_s, part.end_s])
    crop = parts[0].crop
    if crop is None and encoded == [[{}, 0.0, None]]:
        return ""
    return json.dumps({"crop": crop, "parts": encoded}, separators=(",", ":"))

"""From a list of files to items: each with its key, its labels, its identity and its split."""

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
from preprocessing.sources.grouping import Splitter
from preprocessing.sources.labels import IDENTITY, SPLIT, InputPart, LabelReader, number
from preprocessing.sources.listing import Entry

log = logging.getLogger(__name__)

_NO_KEY = re.compile(r"[^A-Za-z0-9_]+")
_KEY_LETTERS = 40


@dataclass(frozen=True)
class Catalogue:
    """All that is known without opening an input."""

    items: list[Item]
    vocabulary: dict[str, list[str]]
    factors: Factors


@dataclass(frozen=True)
class Segment:
    """A part of an input, with its labels as a clip has them."""

    labels: dict[str, Label]
    start_s: Fraction = Fraction(0)
    end_s: Fraction | None = None


def make_catalogue(
    entries: Iterable[Entry],
    reader: LabelReader,
    *,
    seed: int,
    test_fraction: float,
    estimate: Callable[[Entry], int],
) -> Catalogue:
    """Label all entries and divide them between the splits.

    An input whose labels cannot be told is listed all the same, and rejected when its turn comes.

    Args:
        estimate: bytes of the clips of an entry.

    Raises:
        UserError: no input has labels, a number is none, or the labels contradict each other.
    """
    listed = list(entries)
    splitter = Splitter(seed=seed, test_fraction=test_fraction)
    values: dict[str, set[str]] = {}
    fault, good = "", 0
    for entry in listed:
        try:
            parts = _parts(reader, entry.name)
        except ValueError as error:
            fault = f"{entry.name}: {error}"
            splitter.tell(key_of(entry.name), None)
            continue
        good += 1
        splitter.tell(*_identity(entry.name, parts))
        for part in parts:
            for name, value in part.labels.items():
                values.setdefault(name, set()).add(value)
    if listed and not good:
        raise UserError(f"no input has the labels that are asked for; the last one, {fault}")
    absent = reader.rows.keys() - {entry.name for entry in listed} if reader.rows else set()
    if absent:
        log.warning("%d rows of the sidecar name no input, such as %s", len(absent), min(absent))
    names = [name for name in values if name not in (IDENTITY, SPLIT)]
    names.sort(key=lambda name: name != "action")  # the dynamic label first
    factors: Factors = {name: "clip" for name in names if name in reader.config.numbers}
    vocabulary = {name: sorted(values[name], key=natural) for name in names if name not in factors}
    index = {name: {value: place for place, value in enumerate(known)} for name, known in vocabulary.items()}
    items = []
    for entry in listed:
        key = key_of(entry.name)
        try:
            parts = _parts(reader, entry.name)
            identity, _ = _identity(entry.name, parts)
            detail = _encode(entry.name, parts, index, factors)
        except ValueError as error:
            identity, detail = key, json.dumps({"refused": str(error)})
        items.append(
            Item(
                key=key,
                split=splitter.split(identity),
                estimated_bytes=max(1, estimate(entry)),
                group="" if identity == key else identity,
                path=entry.name,
                version=entry.version,
                detail=detail,
            )
        )
    return Catalogue(items, vocabulary, factors)


def segments_of(item: Item) -> tuple[list[Segment], Crop | None]:
    """The parts of an item and the crop box of its frames; RejectedInputError if its labels could not be told."""
    if not item.detail:
        return [Segment({})], None
    content = json.loads(item.detail)
    if "refused" in content:
        raise RejectedInputError(content["refused"])
    crop = content["crop"]
    return [Segment(labels, _time(start), _time(end)) for labels, start, end in content["parts"]], crop and tuple(crop)


def _time(seconds: float | None) -> Any:
    """What the user wrote, to be compared with exact times: 0.4 is 2/5, which the float is not."""
    return None if seconds is None else Fraction(seconds).limit_denominator(10**6)


def key_of(name: str) -> str:
    """A key that is unique to a path: the end of it in plain letters, and a hash."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"{_NO_KEY.sub('-', name)[-_KEY_LETTERS:].strip('-')}-{digest}"


def natural(text: str) -> list[tuple[int, int, str]]:
    """Sorts `2` before `10`, and numbers before words."""
    pieces = [piece for piece in re.split(r"(\d+)", text) if piece]
    return [(0, int(piece), piece) if piece.isdecimal() else (1, 0, piece) for piece in pieces]


def _parts(reader: LabelReader, name: str) -> list[InputPart]:
    parts = reader.parts(name)
    lacking = next((label for part in parts for label in reader.names if label not in part.labels), None)
    if lacking is not None:
        raise ValueError(f"its path does not tell the label {lacking}")
    return parts


def _identity(name: str, parts: list[InputPart]) -> tuple[str, str | None]:
    """Identity and, where told, split of an input."""
    told = {(part.labels.get(IDENTITY), part.labels.get(SPLIT)) for part in parts}
    if len(told) > 1 or len({part.crop for part in parts}) > 1:
        raise UserError(f"the rows of {name} tell several identities, splits or crop boxes; an input has one of each")
    identity, split = told.pop()
    return identity or key_of(name), split


def _encode(name: str, parts: list[InputPart], index: dict[str, dict[str, int]], factors: Factors) -> str:
    coded: list[list[object]] = []
    for part in parts:
        labels: dict[str, Label] = {label: index[label][part.labels[label]] for label in index}
        labels |= {label: number(name, label, part.labels[label]) for label in factors}
        coded.append([labels, part.start_s, part.end_s])
    crop = parts[0].crop
    if crop is None and coded == [[{}, 0.0, None]]:
        return ""
    return json.dumps({"crop": crop, "parts": coded}, separators=(",", ":"))

"""The rows of a run as its folder holds them: what a tracker has lost is sent again from here."""

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.trackers.scalars import scalars_of
from pipeline.trackers.tracker import Row

SAMPLES = "samples"
"""Folder in that of a run for its sample images and animations."""


def records_of(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a metrics.jsonl, without lines that are torn or no records."""
    if path.is_file():
        for line in path.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError, LookupError, TypeError, RecursionError):
                record = json.loads(line)
                int(record["overall_step"])
                yield record


def stored_rows(folder: Path, records: Iterable[Mapping[str, Any]], step: int | None = None) -> list[Row]:
    """Return the rows of a run in their order, up to `step` if it is given.

    Args:
        folder: local folder of the run, with its sample images.
        records: the records of its metrics.jsonl.
        step: steps done in both stages.
    """
    rows: dict[int, Row] = {}
    for record in records:
        number = int(record["overall_step"])
        row = rows.setdefault(number, Row(number, {}, {}))
        rows[number] = row._replace(scalars={**row.scalars, **scalars_of(record)})
    for path in sorted((folder / SAMPLES).glob("stage*")):
        if found := re.fullmatch(r"stage(\d)-(.+)-(\d{8})\.(gif|png)", path.name):
            number = int(found[3])
            row = rows.setdefault(number, Row(number, {}, {}))
            tag = f"stage {found[1]}/{found[2].replace('-', ' ')}"
            rows[number] = row._replace(media={**row.media, tag: path})
    return [rows[number] for number in sorted(rows) if step is None or number <= step]

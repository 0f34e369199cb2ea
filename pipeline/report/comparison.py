"""Several evaluations side by side: may they be compared at all, which figures differ surely, and in which settings."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from cluster.errors import UserError
from cluster.storage import api as storage
from pipeline.report.table import Metric, Metrics, direction

PLACES = ("", "report", "evaluation")
"""Folders in which the metrics.json of a run or a report is looked for."""
SAME = (
    ("data_sha256", "test clips of other data"),
    ("pairs_sha256", "other pairs of test clips"),
    ("clip_frames", "clips of another length"),
)
"""What must be equal in the provenance, and what it means that it is not."""


@dataclass(frozen=True)
class Report:
    """One evaluation, as `vdsm evaluate` left it."""

    name: str
    """Unique among those that are compared."""
    place: str
    """Its folder."""
    metrics: Metrics
    training: str
    """The log of the training; may be empty."""
    transfer: bytes | None
    """A moving picture (WebP) of the action transfer."""


def read_reports(places: Sequence[str]) -> list[Report]:
    """The evaluations at folders that `vdsm evaluate --out` or `vdsm train` wrote.

    Raises:
        UserError: a folder has no evaluation, or it is damaged or of another version.
    """
    found = [_folder(place.removesuffix("metrics.json")) for place in places]
    names = _names(found)
    reports = []
    for name, (folder, metrics) in zip(names, found, strict=True):
        log, picture = storage.join(folder, "training.jsonl"), storage.join(folder, "transfer.webp")
        training = storage.read_bytes(log).decode(errors="replace") if storage.exists(log) else ""
        transfer = storage.read_bytes(picture) if storage.exists(picture) else None
        reports.append(Report(name, folder, metrics, training, transfer))
    return reports


def _folder(place: str) -> tuple[str, Metrics]:
    for part in PLACES:
        folder = storage.join(place, part)
        file = storage.join(folder, "metrics.json")
        if not storage.exists(file):
            continue
        try:
            metrics: Metrics = json.loads(storage.read_bytes(file))
            figures, source = metrics["figures"], metrics["provenance"]
            whole = all({"value", "n", "chance", "low", "high"} <= set(figure) for figure in figures.values())
            if not whole or not isinstance(source["data_sha256"], str):
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{file} is damaged, or not what `vdsm evaluate` writes; evaluate again") from None
        return folder, metrics
    if storage.exists(storage.join(place, "run.json")):
        raise UserError(
            f"{place}: this run has not been evaluated in its folder; name the folder of its report, or make one with "
            f"`vdsm evaluate --run {place} --data DATA --out {storage.join(place, 'report')}`"
        )
    raise UserError(f"{place}: there is no metrics.json here; name a folder that `vdsm evaluate --out` wrote")


def _names(found: Sequence[tuple[str, Metrics]]) -> list[str]:
    """The names of the runs; where these are alike, those of the folders; where these are too, a number is added."""
    sources = [metrics["provenance"] for _, metrics in found]
    runs = [
        PurePosixPath(str(source.get("run") or source.get("samples") or folder)).name
        for source, (folder, _) in zip(sources, found, strict=True)
    ]
    names = runs if len(set(runs)) == len(runs) else [folder.rstrip("/") for folder, _ in found]
    if len(set(names)) == len(names):
        return names
    return [f"{name} ({number})" for number, name in enumerate(names, 1)]


def check_comparable(reports: Sequence[Report]) -> list[str]:
    """Refuse evaluations whose figures mean different things; returns what a reader should know of the others.

    Raises:
        UserError: they were measured on other data, other pairs, other lengths, or by another version.
    """
    first = reports[0]
    for other in reports[1:]:
        if other.metrics["schema_version"] != first.metrics["schema_version"]:
            raise UserError(
                f"{first.place} and {other.place} were written by different versions (schema "
                f"{first.metrics['schema_version']} and {other.metrics['schema_version']}); evaluate the older again"
            )
        for key, meaning in SAME:
            ours, theirs = (report.metrics["provenance"].get(key) for report in (first, other))
            if ours != theirs:
                raise UserError(
                    f"{first.place} and {other.place} cannot be compared: they were measured on {meaning} "
                    f"({key} {_short(ours)} and {_short(theirs)}); evaluate both with the same --data, --seed and pairs"
                )
    notes = []
    judges = {(report.metrics["provenance"].get("judge") or {}).get("key") for report in reports}
    if len(judges) > 1:
        notes.append("They had different judges, so that small differences may be those of the judges.")
    if len({report.metrics["swap_by"] for report in reports}) > 1:
        notes.append("Some were measured without a sequence stage: they swap the poses of every frame.")
    if not all(report.metrics["provenance"].get("finished", True) for report in reports):
        notes.append("Some were measured before their training was finished.")
    return notes


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) else str(value)


def comparison(reports: Sequence[Report], notes: Sequence[str]) -> dict[str, Any]:
    """What compare.json holds."""
    names = list(dict.fromkeys(name for report in reports for name in report.metrics["figures"]))
    source = reports[0].metrics["provenance"]
    return {
        "schema_version": 1,
        "metrics_schema_version": reports[0].metrics["schema_version"],
        **{key: source.get(key) for key, _ in SAME},
        "reports": [
            {
                "name": report.name,
                "place": report.place,
                "checkpoint_sha256": report.metrics["provenance"].get("checkpoint_sha256"),
                "warnings": report.metrics["warnings"],
            }
            for report in reports
        ],
        "figures": {
            name: compared(name, [report.metrics["figures"].get(name) for report in reports]) for name in names
        },
        "settings": settings(reports),
        "notes": list(notes),
    }


def compared(name: str, figures: Sequence[Metric | None]) -> dict[str, Any]:
    """One figure of all reports, and which of them is surely the best.

    `best` is the position of the report whose 95% interval lies wholly on the better side of all others', or None:
    where intervals overlap, nobody is marked. Reports without the figure are passed over, but one alone is no best.
    """
    sign = direction(name)
    there = [(place, figure) for place, figure in enumerate(figures) if figure is not None]
    best = None
    if sign and len(there) > 1:
        leader, top = max(there, key=lambda item: sign * item[1]["value"])
        others = [figure for place, figure in there if place != leader]
        if sign > 0 and all(top["low"] > figure["high"] for figure in others):
            best = leader
        if sign < 0 and all(top["high"] < figure["low"] for figure in others):
            best = leader
    better = {1: "higher", -1: "lower", 0: None}[sign]
    return {"better": better, "best": best, "values": list(figures)}


def settings(reports: Sequence[Report]) -> dict[str, list[Any]]:
    """The settings in which the reports differ: dotted name to the value of each, None where it has none."""
    flat = []
    for report in reports:
        source = report.metrics["provenance"]
        kept = {key: source[key] for key in ("stage", "step", "seed", "threads", "judge", "versions") if key in source}
        tree = {**source.get("recipe", {}), "evaluation": source.get("evaluation", {}), "measured": kept}
        flat.append(dict(_leaves(tree)))
    names = sorted({name for leaves in flat for name in leaves})
    columns = {name: [leaves.get(name) for leaves in flat] for name in names}
    return {name: values for name, values in columns.items() if any(value != values[0] for value in values)}


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value

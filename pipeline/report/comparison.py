"""Comparison of evaluations: whether they are comparable, which metrics differ reliably, and which settings differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from cluster.cli.recipe_file import leaves
from cluster.errors import UserError
from cluster.storage import api as storage
from pipeline import former_names
from pipeline.report.foreign_metrics import read_metrics
from pipeline.report.metric_format import Metric, Metrics, direction

SUBFOLDERS = ("", "report", "evaluation")
"""Subfolders of a run or a report that are searched for metrics.json."""
MUST_MATCH = (
    ("data_sha256", "different data"),
    ("pairs_sha256", "different pairs of test clips"),
    ("clip_frames", "different clip lengths"),
)
"""Keys of the provenance that must be equal, and what it means if they are not."""


@dataclass(frozen=True)
class Report:
    """One evaluation, as written by `vdsm evaluate`."""

    name: str
    """Unique among the compared reports."""
    url: str
    """URL of its folder."""
    metrics: Metrics
    training: str
    """The training log; may be empty."""
    transfer: bytes | None
    """Animated WebP of the action transfer."""

    @property
    def is_samples(self) -> bool:
        """Whether another system made the clips, so that there is no recipe and no model."""
        return bool(self.metrics["swap_by"] == "samples")


def read_reports(urls: Sequence[str]) -> list[Report]:
    """Read evaluations from folders written by `vdsm evaluate --out` or `vdsm train`.

    Raises:
        UserError: a folder has no evaluation, or a damaged one.
    """
    found = [_find_metrics(url.removesuffix("metrics.json")) for url in urls]
    reports = []
    for name, (folder, metrics) in zip(_names(found), found, strict=True):
        log, animation = storage.join(folder, "training.jsonl"), storage.join(folder, "transfer.webp")
        training = storage.read_bytes(log).decode(errors="replace") if storage.exists(log) else ""
        transfer = storage.read_bytes(animation) if storage.exists(animation) else None
        reports.append(Report(name, folder, metrics, training, transfer))
    return reports


def _find_metrics(url: str) -> tuple[str, Metrics]:
    """Return the folder at or below `url` that contains metrics.json, and the content of that file."""
    for subfolder in SUBFOLDERS:
        folder = storage.join(url, subfolder)
        file = storage.join(folder, "metrics.json")
        if not storage.exists(file):
            continue
        try:
            metrics = read_metrics(file)
        except ValueError as error:
            raise UserError(
                f"{file} is damaged, or was not written by `vdsm evaluate` ({error}); rerun that command"
            ) from None
        return folder, metrics
    if storage.exists(storage.join(url, "run.json")):
        raise UserError(
            f"{url}: this run has no report in its folder; name the folder of its report, or create one with "
            f"`vdsm evaluate --run {url} --data DATA --out {storage.join(url, 'report')}`"
        )
    raise UserError(f"{url}: no metrics.json found; name a folder written by `vdsm evaluate --out`")


def _names(found: Sequence[tuple[str, Metrics]]) -> list[str]:
    """Return a unique name for each report.

    These are the names of the runs and systems; the folder where such a name is not unique; and if a folder is not
    either, all of them are numbered.
    """
    sources = [metrics["provenance"] for _, metrics in found]
    runs = [
        source.get("system") or PurePosixPath(str(source.get("run") or source.get("samples") or folder)).name
        for source, (folder, _) in zip(sources, found, strict=True)
    ]
    names = [run if runs.count(run) == 1 else folder.rstrip("/") for run, (folder, _) in zip(runs, found, strict=True)]
    if len(set(names)) == len(names):
        return names
    return [f"{name} ({number})" for number, name in enumerate(names, 1)]


def check_comparable(reports: Sequence[Report]) -> list[str]:
    """Check that the metrics of all reports mean the same; return notes on other differences for the reader.

    Raises:
        UserError: the reports were measured on different data, pairs or clip lengths, or by different versions.
    """
    first = reports[0]
    for other in reports[1:]:
        if other.metrics["schema_version"] != first.metrics["schema_version"]:
            raise UserError(
                f"{first.url} and {other.url} were written by different versions (schema "
                f"{first.metrics['schema_version']} and {other.metrics['schema_version']}); evaluate the older again"
            )
        for key, meaning in MUST_MATCH:
            ours, theirs = (report.metrics["provenance"].get(key) for report in (first, other))
            if ours != theirs:
                raise UserError(
                    f"{first.url} and {other.url} cannot be compared: they were measured on {meaning} "
                    f"({key} {_short(ours)} and {_short(theirs)}); evaluate both with the same --data, --seed and pairs"
                )
    notes = []
    judges = {(report.metrics["provenance"].get("judge") or {}).get("key") for report in reports}
    if len(judges) > 1:
        notes.append("The judges differ, so small differences may be due to the judges.")
    swapped_by = {report.metrics["swap_by"] for report in reports}
    if "poses" in swapped_by and len(swapped_by) > 1:
        notes.append("Some reports were measured without a sequence stage: they swap the poses of every frame.")
    if "samples" in swapped_by and len(swapped_by) > 1:
        names = ", ".join(report.name for report in reports if report.is_samples)
        notes.append(
            f"Of {names} there are only samples: probes, ELBO and what needs no label are measured on runs alone."
        )
    if not all(report.metrics["provenance"].get("finished", True) for report in reports):
        notes.append("Some runs were measured before their training was finished.")
    return notes


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) else str(value)


def comparison(reports: Sequence[Report], notes: Sequence[str]) -> dict[str, Any]:
    """Return the content of compare.json."""
    names = list(dict.fromkeys(name for report in reports for name in report.metrics["figures"]))
    source = reports[0].metrics["provenance"]
    return {
        "schema_version": 1,
        "metrics_schema_version": reports[0].metrics["schema_version"],
        **{key: source.get(key) for key, _ in MUST_MATCH},
        "reports": [
            {
                "name": report.name,
                "place": report.url,
                "checkpoint_sha256": report.metrics["provenance"].get("checkpoint_sha256"),
                "samples_sha256": report.metrics["provenance"].get("samples_sha256"),
                "warnings": report.metrics["warnings"],
            }
            for report in reports
        ],
        "figures": {
            name: compare_metric(name, [report.metrics["figures"].get(name) for report in reports]) for name in names
        },
        "settings": differing_settings(reports),
        "notes": list(notes),
    }


def compare_metric(name: str, values: Sequence[Metric | None]) -> dict[str, Any]:
    """Return one metric of all reports, and which of them is reliably the best.

    `best` is the index of the report whose 95% interval is better than, and disjoint from, those of all others; it is
    None if intervals overlap, or one is not known. Reports without the metric are skipped; a single report is never the
    best.
    """
    sign = direction(name)
    present = [(index, metric) for index, metric in enumerate(values) if metric is not None]
    best = None
    are_known = all(metric["low"] is not None and metric["high"] is not None for _, metric in present)
    if sign and len(present) > 1 and are_known:
        leader, top = max(present, key=lambda item: sign * item[1]["value"])
        others = [metric for index, metric in present if index != leader]
        if sign > 0 and all(top["low"] > metric["high"] for metric in others):
            best = leader
        if sign < 0 and all(top["high"] < metric["low"] for metric in others):
            best = leader
    better = {1: "higher", -1: "lower", 0: None}[sign]
    return {"better": better, "best": best, "values": list(values)}


def differing_settings(reports: Sequence[Report]) -> dict[str, list[Any]]:
    """Return the settings that differ: dotted name -> value in each report, None where it has none.

    Samples of other systems have no recipe; they do not make the settings of the runs differ.
    """
    recipes, others = [], []
    for report in reports:
        source = report.metrics["provenance"]
        kept = {key: source[key] for key in ("stage", "step", "seed", "threads", "judge", "versions") if key in source}
        recipes.append(_flat(source.get("recipe") or {}))
        others.append(_flat({"evaluation": source.get("evaluation", {}), "measured": kept}))
    runs = [recipe for recipe in recipes if recipe]
    differing = _differing(runs) | _differing(others)
    return {
        name: [{**recipe, **other}.get(name) for recipe, other in zip(recipes, others, strict=True)]
        for name in sorted(differing)
    }


def _flat(tree: dict[str, Any]) -> dict[str, Any]:
    return {former_names.SETTINGS.get(name, name): value for name, value in leaves(tree)}


def _differing(settings: Sequence[dict[str, Any]]) -> set[str]:
    """Return the names whose values are not the same everywhere."""
    names = {name for values in settings for name in values}
    return {name for name in names if any(values.get(name) != settings[0].get(name) for values in settings)}

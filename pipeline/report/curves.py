"""Training curves, drawn from the metrics.jsonl of a run. Invalid lines and absent keys are skipped."""

import json
import math
from collections.abc import Mapping
from typing import Any

from pipeline import former_names
from pipeline.report.line_chart import STYLES, LineChart, Points, line_chart
from vdsm.config import REGULARISERS

Record = dict[str, Any]

CHARTS: tuple[tuple[str, tuple[str, ...], bool], ...] = (
    ("Loss: annealed −ELBO and its reconstruction term", ("loss", "reconstruction"), False),
    (
        "KL terms and regularisers, not annealed",
        ("kl_pose", "kl_static", "kl_dynamics", *REGULARISERS),
        True,
    ),
    ("Annealed weights", ("weight_pose", "weight_static", "weight_dynamics"), True),
    ("Softmax temperature", ("temperature",), False),
)
"""Title, keys of the records, and whether the axis is logarithmic."""
VALIDATION = "validation −ELBO"

COMPARED: tuple[tuple[str, str, str, bool], ...] = (
    (VALIDATION, "validation", "elbo", False),
    ("Loss, annealed", "train", "loss", False),
    ("Reconstruction", "train", "reconstruction", False),
    ("KL of the static code", "train", "kl_static", True),
    ("KL of the pose", "train", "kl_pose", True),
    ("KL of the dynamics code", "train", "kl_dynamics", True),
)
"""Title, kind of record, key, and whether the axis is logarithmic."""

MAX_VALUE = 1e300
"""Values from here on have no position on an axis; nor has NaN, which no bound holds for."""
MAX_STEP = 2**53
"""Steps from here on have no exact position on an axis."""
MAX_POINTS = 300
"""Maximum number of points of a line."""


def read_records(text: str) -> list[Record]:
    """Return the records of a metrics.jsonl under the current names of their keys.

    Each has an `overall_step`, which counts over both stages.
    """
    records = []
    for line in text.splitlines():
        try:
            record = json.loads(line)
            record["overall_step"] = int(record["overall_step"] if "overall_step" in record else record["step"])
            renamed = former_names.RECORDS.get(record.get("stage"), {})
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            continue
        if not 0 <= record["overall_step"] < MAX_STEP:
            continue
        records.append({renamed.get(key, key): value for key, value in record.items()})
    return records


def training_charts(records: list[Record]) -> list[LineChart]:
    """Return the charts of one run: one per group of keys that the records contain."""
    training = [record for record in records if record.get("kind", "train") == "train"]
    validation = [record for record in records if record.get("kind") == "validation"]
    if not training:
        return []
    last_step = max(record["overall_step"] for record in training)
    charts = []
    for title, keys, logarithmic in CHARTS:
        lines = {key.replace("_", " "): _points(training, key, logarithmic) for key in keys}
        if "loss" in keys:
            lines[VALIDATION] = _points(validation, "elbo", False)
        lines = {name: points for name, points in lines.items() if points}
        if lines:
            change = _stage_change(training)
            charts.append(line_chart(title, lines, last_step, stage_change=change, logarithmic=logarithmic))
    return charts


def comparison_charts(runs: Mapping[str, list[Record]]) -> list[LineChart]:
    """Return the charts of several runs: one per logged value, with a line per run in the same style in every chart.

    A change of stage is marked if it is at the same step in all runs.
    """
    last_step = max((record["overall_step"] for records in runs.values() for record in records), default=0)
    changes = {_stage_change(records) for records in runs.values() if records}
    change = next(iter(changes)) if len(changes) == 1 else None
    style_of = {name: number % STYLES for number, name in enumerate(runs)}
    charts = []
    for title, kind, key, logarithmic in COMPARED:
        lines = {}
        for name, records in runs.items():
            points = _points([record for record in records if record.get("kind", "train") == kind], key, logarithmic)
            if points:
                lines[name] = points
        if lines:
            styles = [style_of[name] for name in lines]
            charts.append(
                line_chart(title, lines, last_step, stage_change=change, logarithmic=logarithmic, styles=styles)
            )
    return charts


def _stage_change(records: list[Record]) -> int | None:
    return min((record["overall_step"] for record in records if record.get("stage") == 2), default=None)


def _points(records: list[Record], key: str, logarithmic: bool) -> Points:
    """Return (step, value) of a key, thinned to at most MAX_POINTS by averaging neighbours; the ELBO is negated."""
    found = [
        (record["overall_step"], float(record[key]))
        for record in records
        if isinstance(record.get(key), int | float) and abs(record[key]) < MAX_VALUE
    ]
    found = [(step, value) for step, value in found if value > 0 or not logarithmic]
    sign = -1 if key == "elbo" else 1
    bin_size = max(1, math.ceil(len(found) / MAX_POINTS))
    bins = [found[start : start + bin_size] for start in range(0, len(found), bin_size)]
    return [(part[-1][0], sign * sum(value for _, value in part) / len(part)) for part in bins]

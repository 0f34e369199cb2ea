"""compare.html: several evaluations in one file that asks nothing of the network."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

from pipeline.report.comparison import Report
from pipeline.report.curves import Panel, overlaid, read_records
from pipeline.report.films import Film, film
from pipeline.report.page import TITLES, fill
from pipeline.report.table import headline


def render_comparison(reports: Sequence[Report], compared: dict[str, Any]) -> str:
    """The page.

    Args:
        reports: the evaluations.
        compared: what compare.json holds; every figure of the page is taken from it.
    """
    first = reports[0].metrics
    titles = {row.name: row.title for report in reports for row in headline(report.metrics)}
    order = [row.name for row in headline(first)]
    order += [name for name in titles if name not in order]
    others = [name for name in compared["figures"] if name not in titles]
    groups: dict[str, list[str]] = {}
    for name in others:
        groups.setdefault(TITLES.get(name.partition(".")[0], "Other figures"), []).append(name)
    return fill(
        "compare.html.j2",
        first,
        title=" · ".join(report.name for report in reports),
        names=[report.name for report in reports],
        reports=reports,
        compared=compared,
        shared_settings=[name for name, values in compared["settings"].items() if None not in values],
        lone_settings=[name for name, values in compared["settings"].items() if None in values],
        rows=[(titles[name], name) for name in order],
        groups=groups,
        films=[(report.name, transfer_film(report)) for report in reports if report.transfer],
        panels=curves(reports),
        source=first["provenance"],
    )


def curves(reports: Sequence[Report]) -> list[Panel]:
    """One drawing per logged value, with a line for each report."""
    return overlaid({report.name: read_records(report.training) for report in reports})


def transfer_film(report: Report) -> Film:
    """The action-transfer picture of a report, playable like all others."""
    assert report.transfer is not None
    with Image.open(io.BytesIO(report.transfer)) as picture:
        frames = [np.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(picture)]
        duration_ms = float(picture.info.get("duration") or 125)
    cell = int(report.metrics["provenance"].get("recipe", {}).get("model", {}).get("frame_size", 64))
    return film(np.stack(frames), 1000 / duration_ms, f"action transfer of {report.name}", cell)

"""compare.html: several evaluations in a single self-contained file that makes no network request."""

from collections.abc import Sequence
from typing import Any

from pipeline.report.comparison import Report
from pipeline.report.curves import comparison_charts, read_records
from pipeline.report.page import fill
from pipeline.report.sharpness import sharpness_rows
from pipeline.report.summary import GROUPS
from pipeline.report.table import headline
from pipeline.report.transfer_file import transfer_animation
from pipeline.report.without_labels import label_free_rows


def render_comparison(reports: Sequence[Report], compared: dict[str, Any]) -> str:
    """Return the page as HTML.

    Args:
        reports: the evaluations.
        compared: the content of compare.json; every number on the page is taken from it.
    """
    first = reports[0].metrics
    titles = {row.name: row.title for report in reports for row in headline(report.metrics)}
    order = [row.name for row in headline(first)]
    titles |= {row.name: row.title for report in reports for row in label_free_rows(report.metrics)}
    titles |= {row.name: row.title for report in reports for row in sharpness_rows(report.metrics)}
    order += [name for name in titles if name not in order]
    groups: dict[str, list[str]] = {}
    for name in compared["figures"]:
        if name not in titles:
            groups.setdefault(GROUPS.get(name.partition(".")[0], "Other metrics"), []).append(name)
    warned: dict[str, list[str]] = {}
    for report in reports:
        for warning in report.metrics["warnings"]:
            warned.setdefault(warning, []).append(report.name)
    runs = [index for index, report in enumerate(reports) if not report.is_samples]
    lone = [name for name, values in compared["settings"].items() if any(values[index] is None for index in runs)]
    return fill(
        "compare.html.j2",
        first,
        title=" · ".join(report.name for report in reports),
        names=[report.name for report in reports],
        reports=reports,
        compared=compared,
        warned=warned,
        shared_settings=[name for name in compared["settings"] if name not in lone],
        lone_settings=lone,
        rows=[(titles[name], name) for name in order],
        groups=groups,
        animations=[(report.name, transfer_animation(report)) for report in reports if report.transfer],
        charts=comparison_charts({report.name: read_records(report.training) for report in reports}),
        source=first["provenance"],
    )

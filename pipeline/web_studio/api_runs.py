"""The part of the API about runs in a folder or bucket: their curves, while they train too, and their evaluations."""

import asyncio
import re
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from pipeline.report.comparison import SUBFOLDERS, Report, check_comparable, comparison, read_reports
from pipeline.report.curves import comparison_charts, read_records, training_charts
from pipeline.report.metric_format import format_interval, format_value, is_share
from pipeline.report.summary import GROUPS, OTHER_GROUP
from pipeline.report.table import headline
from pipeline.report.transfer_file import transfer_animation
from pipeline.report.without_labels import label_free_rows
from pipeline.runs.log_upload import METRICS, read_log
from pipeline.web_studio.api_model import REFUSALS, Serving
from pipeline.web_studio.schema import Sheet
from pipeline.web_studio.settings import StudioSettings

MOST_RUNS = 8
"""Most runs that are shown side by side; the number of line styles."""
MARKS = ("run.json", *(f"{folder}/metrics.json".lstrip("/") for folder in SUBFOLDERS))
router = APIRouter(prefix="/api", responses=REFUSALS)
Names = Annotated[list[str], Query(alias="name", min_length=1, max_length=MOST_RUNS, description="names of runs")]


class RunEntry(BaseModel):
    """A run in the folder."""

    name: str
    has_curves: bool = Field(description="whether it is or was trained here, rather than only evaluated")
    has_report: bool = Field(description="whether `vdsm evaluate` wrote metrics into its folder")


class Chart(BaseModel):
    """A chart of training curves."""

    title: str
    svg: str
    legend: list[tuple[str, str]] = Field(description="CSS class and name of each line")


class CurvesAnswer(BaseModel):
    """Training curves."""

    steps: dict[str, int] = Field(description="last step of each run")
    charts: list[Chart]


class MetricRow(BaseModel):
    """A metric of all runs."""

    name: str
    title: str
    group: str = Field(description="title of a group of metrics; empty for those that a report begins with")
    values: list[str]
    intervals: list[str]
    best: int | None = Field(description="number of the run that is reliably best")


class CompareAnswer(BaseModel):
    """Evaluations side by side."""

    names: list[str]
    notes: list[str]
    rows: list[MetricRow]
    settings: dict[str, list[str]]
    animations: dict[str, Sheet]


@router.get("/runs", summary="The runs in the folder")
async def runs(studio: Serving) -> list[RunEntry]:
    """Return the runs by name."""
    return await asyncio.to_thread(_entries, studio.settings)


@router.get("/runs/curves", summary="Training curves of one or several runs, up to now")
async def curves(studio: Serving, names: Names) -> CurvesAnswer:
    """Return charts as SVG."""

    def answer() -> CurvesAnswer:
        records = {name: read_records(_log(_url(studio.settings, name))) for name in names}
        charts = training_charts(records[names[0]]) if len(names) == 1 else comparison_charts(records)
        steps = {name: max((one["overall_step"] for one in found), default=0) for name, found in records.items()}
        return CurvesAnswer(
            steps=steps, charts=[Chart(title=one.title, svg=one.svg, legend=one.legend) for one in charts]
        )

    return await asyncio.to_thread(answer)


@router.get("/runs/compare", summary="Metrics and animations of evaluated runs, as `vdsm compare` compares them")
async def compare(studio: Serving, names: Names) -> CompareAnswer:
    """Return what is comparable, side by side."""

    def answer() -> CompareAnswer:
        reports = read_reports([_url(studio.settings, name) for name in names])
        compared = comparison(reports, check_comparable(reports))
        titles = {row.name: row.title for report in reports for row in headline(report.metrics)}
        titles |= {row.name: row.title for report in reports for row in label_free_rows(report.metrics)}
        figures = compared["figures"]
        order = [*(name for name in titles if name in figures), *(name for name in figures if name not in titles)]
        shown = {}
        for name, report in zip(names, reports):
            if report.transfer is not None:
                shown[name] = Sheet.of(transfer_animation(report))
        return CompareAnswer(
            names=names, notes=[*compared["notes"], *_warnings(reports)], animations=shown,
            rows=[_row(name, figures[name], titles, reports) for name in order],
            settings={key: [_text(one) for one in values] for key, values in compared["settings"].items()},
        )  # fmt: skip

    return await asyncio.to_thread(answer)


def _entries(settings: StudioSettings) -> list[RunEntry]:
    found: dict[str, set[str]] = {}
    for path in storage.list_files(_folder(settings)):
        name, _, rest = path.partition("/")
        if rest in (*MARKS, METRICS):
            found.setdefault(name, set()).add(rest)
    return [
        RunEntry(name=name, has_curves=METRICS in files, has_report=bool(files & {*MARKS[1:]}))
        for name, files in sorted(found.items())
        if files & {*MARKS}
    ]


def _folder(settings: StudioSettings) -> str:
    if settings.runs is None:
        raise UserError("the studio was started without a folder of runs; start it with --runs RUNS to compare them")
    return settings.runs


def _url(settings: StudioSettings, name: str) -> str:
    """Return the folder of a run.

    Raises:
        UserError: the name could lead elsewhere, or there is no such run.
    """
    folder = storage.join(_folder(settings), name)
    plain = not re.search(r"[/\\\x00]", name) and name not in ("", ".", "..")
    if not plain or not any(storage.exists(storage.join(folder, mark)) for mark in MARKS):
        raise UserError(f"{name:.80}: there is no run of this name in {settings.runs}")
    return folder


def _log(url: str) -> str:
    try:
        return read_log(storage.join(url, METRICS)).decode(errors="replace")
    except MissingFileError:
        return ""


def _row(name: str, entry: dict[str, Any], titles: dict[str, str], reports: list[Report]) -> MetricRow:
    shares = [is_share(name, report.metrics) for report in reports]
    values = entry["values"]
    group = "" if name in titles else GROUPS.get(name.partition(".")[0], OTHER_GROUP)
    return MetricRow(
        name=name, title=titles.get(name, name), group=group, best=entry["best"],
        values=[format_value(one["value"] if one else None, share) for one, share in zip(values, shares)],
        intervals=[format_interval(one, share) if one else "" for one, share in zip(values, shares)],
    )  # fmt: skip


def _warnings(reports: list[Report]) -> list[str]:
    return [f"{report.name}: {warning}" for report in reports for warning in report.metrics["warnings"]]


def _text(value: Any) -> str:
    return "–" if value is None else str(value)

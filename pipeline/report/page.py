"""report.html: a single self-contained file that makes no network request.

Every number on the page is taken from metrics.json.
"""

import base64
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from cluster.cli.yaml_file import to_yaml
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from pipeline.report import summary
from pipeline.report.animation import display_fps, median_fps
from pipeline.report.curves import read_records, training_charts
from pipeline.report.gallery import Gallery, draw_gallery, draw_samples_gallery
from pipeline.report.grids import Indices
from pipeline.report.images import Frames, encode_webp
from pipeline.report.latent_map import SIZE, marks
from pipeline.report.line_chart import LineChart
from pipeline.report.metric_format import Metrics, format_interval, format_value, is_share, percent
from pipeline.report.paired_clips import PairedClips
from pipeline.report.sharpness import sharpness_rows
from pipeline.report.table import headline
from pipeline.report.without_labels import label_free_rows
from pipeline.runs.log_upload import METRICS, read_log
from vdsm.evaluation.clips import LabelledClips
from vdsm.evaluation.measurement import Measurement, Swapped
from vdsm.evaluation.progress import Progress

NO_LABELS = "The clips have no action label, so there is no judge of the swaps."


def write_report(
    out: str,
    *,
    run: str,
    clips: LabelledClips,
    measured: Measurement,
    metrics: Metrics,
    sequence_stage: bool,
    grid_clips: int,
    seed: int,
    command: str,
    progress: Progress,
    paired: PairedClips | None = None,
) -> None:
    """Draw the gallery of a model and write report.html, transfer.webp and training.jsonl.

    transfer.webp is the first block of the action-transfer matrix, as an animation for any viewer. training.jsonl is
    the log that the training curves are drawn from.

    Args:
        out: URL of the folder of the report, next to metrics.json.
        run: URL of the run.
        clips: the test split.
        measured: the model, its codes and its swaps.
        metrics: the content of metrics.json.
        sequence_stage: whether the model has a dynamics code; otherwise poses are swapped.
        grid_clips: maximum number of clips decoded for the action-transfer matrix.
        seed: seed of the samples of the prior.
        command: a command line that repeats the evaluation.
        progress: receives `pipeline.report.gallery.PHASES` phases.
        paired: the pairs that the run was trained on, if it found them itself.
    """
    gallery = draw_gallery(clips, measured, sequence_stage, grid_clips, seed, progress)
    gallery = dataclasses.replace(gallery, paired=paired)
    log = _training_log(run)
    charts = training_charts(read_records(log.decode(errors="replace")))
    html = render(metrics, gallery, run.rstrip("/").rpartition("/")[2], charts, command)
    if gallery.transfer is not None:
        animated = encode_webp(gallery.transfer.shareable, display_fps(median_fps(clips)))
        storage.write_bytes(storage.join(out, "transfer.webp"), animated)
    storage.write_bytes(storage.join(out, "training.jsonl"), log)
    storage.write_bytes(storage.join(out, "report.html"), html.encode())


def write_samples_report(
    out: str,
    *,
    title: str,
    clips: LabelledClips,
    swapped: Swapped,
    samples_of: Callable[[Indices], Sequence[Frames]],
    metrics: Metrics,
    command: str,
) -> None:
    """Write report.html for samples of another system.

    Args:
        out: URL of the folder of the report.
        title: name of the system.
        clips: the test split.
        swapped: its pairs and the judge's verdicts.
        samples_of: returns the samples of the pairs at some positions.
        metrics: the content of metrics.json.
        command: a command line that repeats the evaluation.
    """
    gallery = draw_samples_gallery(clips, swapped, samples_of, metrics["provenance"]["clip_frames"])
    html = render(metrics, gallery, title, [], command)
    storage.write_bytes(storage.join(out, "report.html"), html.encode())


def render(metrics: Metrics, gallery: Gallery, title: str, charts: list[LineChart], command: str = "") -> str:
    """Return the page as HTML.

    Args:
        metrics: the content of metrics.json.
        gallery: its animations and maps.
        title: name of the run or of the samples.
        charts: training curves; may be empty.
        command: a command line that repeats the evaluation.
    """
    rows = headline(metrics)
    recipe = metrics["provenance"].get("recipe", {})
    return fill(
        "report.html.j2",
        metrics,
        title=title,
        gallery=dataclasses.replace(gallery, absent={"headline": NO_LABELS, **gallery.absent}),
        summary=summary.headline_sentence(metrics),
        tiles=summary.tiles(metrics),
        rows=rows,
        controls=list(rows[0].controls) if rows else [],
        label_free=label_free_rows(metrics),
        sharpness=sharpness_rows(metrics),
        probes=summary.probes(metrics),
        confusions=summary.confusions(metrics),
        groups=summary.groups(metrics),
        explored=metrics.get("exploration"),
        marks=marks(),
        map_size=SIZE,
        expert_groups=recipe.get("model", {}).get("static_groups", 1),
        charts=charts,
        facts=summary.provenance_facts(metrics),
        command=command,
        configuration=to_yaml(recipe) if recipe else "",
    )


def fill(template: str, metrics: Metrics, **values: Any) -> str:
    """Render a template of this package with the style sheet, the script and the filters that format metrics."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(package_file),
    )
    environment.filters |= {
        "percent": percent,
        "thousands": "{:,}".format,
        "value_of": lambda value, name: format_value(value, is_share(name, metrics)),
        "interval_of": lambda metric, name: format_interval(metric, is_share(name, metrics)),
        "above_chance": _above_chance,
    }
    script = package_file("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        metrics=metrics, style=Markup(package_file("page.css")), script=Markup(script), script_sha256=digest, **values
    )


@functools.cache
def package_file(name: str) -> str:
    """Return the text of a file of this package."""
    return resources.files("pipeline.report").joinpath(name).read_text(encoding="utf-8")


def _above_chance(value: float, chance: float | None) -> float:
    """Rescale a share so that 0 is chance level or below and 1 is always right."""
    floor = chance or 0.0
    return round(min(max((value - floor) / max(1 - floor, 1e-9), 0.0), 1.0), 3)


def _training_log(run: str) -> bytes:
    try:
        return read_log(storage.join(run, METRICS))
    except MissingFileError:
        return b""

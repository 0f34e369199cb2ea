"""The headline table: what the judge sees in the swaps, next to chance, the ceiling and the controls."""

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.errors import one_line
from pipeline.report.metric_format import Metric, Metrics, format_interval, format_value, is_share, percent
from pipeline.report.sharpness import SharpnessRow, sharpness_rows
from pipeline.report.without_labels import label_free_rows

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One row of the headline table."""

    title: str
    name: str
    """Dotted name in metrics.json."""
    metric: Metric
    ceiling: float | None
    """The same metric of the `perfect` control: real clips through the judge."""
    lower_is_better: bool
    controls: dict[str, float | None]
    """The same metric of the other controls."""

    @property
    def leaks(self) -> bool:
        """Whether it is a leak beyond what a perfect swap shows."""
        return self.lower_is_better and leaks(self.metric, self.ceiling)


def leaks(metric: Metric, ceiling: float | None) -> bool:
    """Return whether a leakage is larger than that of a perfect swap, `ceiling`, or than chance where that is unknown.

    Two clips that agree by chance look like a leak, in a perfect swap too. A difference within the interval is none.
    """
    allowed = metric["chance"] if ceiling is None else ceiling
    least = metric["value"] if metric["low"] is None else metric["low"]
    return bool(metric["value"] > (allowed or 0.0) and least > (allowed or 0.0))


def swap_prefix(metrics: Metrics) -> str:
    """Return the prefix of the swap metrics: `pose_` if poses were swapped instead of dynamics codes, else empty."""
    return "" if "swap.action.accuracy" in metrics["figures"] else "pose_"


def headline(metrics: Metrics) -> list[Row]:
    """Return the accuracy of the action, of each attribute and of all attributes jointly, then the leakage per factor.

    The result is empty for data without labels.
    """
    prefix = swap_prefix(metrics)
    attributes = metrics["factors"]["static"]
    names = [("action", "swap.action.accuracy", False)]
    names += [(name, f"swap.static.{name}.accuracy", False) for name in attributes]
    names += [("all attributes", "swap.static.joint", False), ("action leakage", "leakage.action", True)]
    names += [(f"{name} leakage", f"leakage.{name}", True) for name in attributes]
    rows = []
    for title, name, lower_is_better in names:
        if prefix + name in metrics["figures"]:
            metric = metrics["figures"][prefix + name]
            controls = {key: scores.get(name, {}).get("value") for key, scores in metrics["controls"].items()}
            ceiling = controls.pop("perfect", None)
            rows.append(Row(title, prefix + name, metric, ceiling, lower_is_better, controls))
    return rows


def text_table(metrics: Metrics) -> str:
    """Return the headline table and the warnings as text for a terminal; without labels, the table that needs none."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"swaps by {metrics['swap_by']}, judged on held-out identities", title_justify="left")
    for name in ("", "value", "95% interval", "chance", "ceiling"):
        table.add_column(name, justify="left" if not name else "right")
    for row in headline(metrics):
        if row.name.endswith("leakage.action"):
            table.add_section()
        table.add_row(
            one_line(row.title), percent(row.metric["value"]), format_interval(row.metric, share=True),
            percent(row.metric["chance"]), percent(row.ceiling),
        )  # fmt: skip
    buffer = io.StringIO()
    # Names of labels are those of a foreign dataset: no mark-up, and nothing that a terminal obeys.
    console = Console(file=buffer, width=100, force_terminal=False, markup=False, highlight=False)
    if table.row_count:
        console.print(table)
        console.print("chance: an output unrelated to the pair; ceiling: real clips through the judge")
        console.print("leakage: share of swaps in which the replaced factor is still visible; chance level means none")
    elif rows := label_free_rows(metrics):
        plain = Table(title=f"transfers by {metrics['swap_by']}, without labels", title_justify="left")
        for name in ("", "value", "95% interval", "chance", "perfect"):
            plain.add_column(name, justify="left" if not name else "right")
        for one in rows:
            share = is_share(one.name, metrics)
            value, chance = (format_value(one.metric[key], share) for key in ("value", "chance"))
            plain.add_row(one_line(one.title), value, format_interval(one.metric, share), chance, one.best)
        console.print(plain)
    if sharp := sharpness_rows(metrics):
        console.print(_sharpness_table(sharp))
    for warning in metrics["warnings"]:
        console.print(f"note: {one_line(warning)}")
    return buffer.getvalue()


def _sharpness_table(rows: list[SharpnessRow]) -> "Table":
    from rich.table import Table

    table = Table(title="sharpness of the pixels that move", title_justify="left")
    for name in ("", "value", "95% interval"):
        table.add_column(name, justify="left" if not name else "right")
    for row in rows:
        value = format_value(row.metric["value"], share=False)
        table.add_row(one_line(row.title), value, format_interval(row.metric, share=False))
    return table

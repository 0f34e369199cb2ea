"""The headline: what was asked of the swaps, with controls and ceiling beside it; and how figures are written."""

import io
from dataclasses import dataclass
from typing import Any

Metric = dict[str, Any]
Metrics = dict[str, Any]

_SHARES = ("judge", "swap", "leakage", "pose_swap", "pose_leakage", "prior", "consistency", "probe")
"""First words of the names of figures that are shares of clips or pairs, where they are about a label."""
_MEASURES = ("r2", "mse", "psnr", "ssim", "mae", "is", "h_y", "h_y_given_x")
"""Words in a name that make it a plain number all the same."""


@dataclass(frozen=True)
class Row:
    """One line of the headline table."""

    title: str
    name: str
    """Dotted name in metrics.json."""
    figure: Metric
    ceiling: float | None
    """The same of the `perfect` control: real clips through the judge."""
    lower_is_better: bool
    controls: dict[str, float | None]
    """The same of the other controls."""


def headline(metrics: Metrics) -> list[Row]:
    """Accuracy of the action, of each attribute and of all attributes at once; then leakage of each factor. Empty for
    data without labels."""
    prefix = "" if "swap.action.accuracy" in metrics["figures"] else "pose_"
    attributes = metrics["factors"]["static"]
    names = [("action", "swap.action.accuracy", False)]
    names += [(name, f"swap.static.{name}.accuracy", False) for name in attributes]
    names += [("all attributes at once", "swap.static.joint", False), ("action leaks", "leakage.action", True)]
    names += [(f"{name} leaks", f"leakage.{name}", True) for name in attributes]
    rows = []
    for title, name, lower_is_better in names:
        if prefix + name in metrics["figures"]:
            figure = metrics["figures"][prefix + name]
            others = {key: scores.get(name, {}).get("value") for key, scores in metrics["controls"].items()}
            ceiling = others.pop("perfect", None)
            rows.append(Row(title, prefix + name, figure, ceiling, lower_is_better, others))
    return rows


def percent(value: float | None) -> str:
    """Such as `97.5%`; a dash where there is none."""
    return "–" if value is None else f"{100 * value:.1f}%"


def is_share(name: str, metrics: Metrics) -> bool:
    """Whether a figure is written in percent: a share of clips or pairs, not a distance or an R2."""
    words = name.split(".")
    if words[0] not in _SHARES or any(measure in words for measure in _MEASURES):
        return False
    # A probe of a continuous factor has an R2.
    return words[0] != "probe" or len(words) < 3 or words[2] in metrics["vocabulary"]


def written(value: float | None, share: bool) -> str:
    """A figure as the report writes it."""
    if value is None:
        return "–"
    return percent(value) if share else f"{value:.4g}"


def interval(figure: Metric, share: bool) -> str:
    """Both ends of its interval; a dash where there is none."""
    low, high = figure["low"], figure["high"]
    if low is None or high is None:
        return "–"
    return f"{100 * low:.1f} – {100 * high:.1f}" if share else f"{low:.4g} – {high:.4g}"


def direction(name: str) -> int:
    """1 where a higher figure is better, -1 where a lower one is, 0 where neither is."""
    words = name.split(".")
    if "leakage" in words or words[0] in ("pose_leakage", "frechet") or words[-1] in ("mse", "h_y_given_x"):
        return -1
    if words[0] in ("swap", "pose_swap", "prior", "reconstruction", "consistency", "cycle", "elbo", "is", "h_y"):
        return 1
    return 0  # probes are good or bad by the code they are of; the judge and the still picture are no model's merit


def text_table(metrics: Metrics) -> str:
    """The headline for a terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"swaps by {metrics['swap_by']}, judged on held-out identities", title_justify="left")
    for name in ("", "value", "95% interval", "chance", "ceiling"):
        table.add_column(name, justify="left" if not name else "right")
    for row in headline(metrics):
        figure = row.figure
        if row.name.endswith("leakage.action"):
            table.add_section()
        ends = interval(figure, share=True)
        table.add_row(row.title, percent(figure["value"]), ends, percent(figure["chance"]), percent(row.ceiling))
    buffer = io.StringIO()
    console = Console(file=buffer, width=100, force_terminal=False)
    if table.row_count:
        console.print(table)
        console.print("chance: an output that has nothing to do with the pair; ceiling: real clips through the judge")
        console.print(
            "leaks: what was to be replaced still shows; without a leak that is as frequent as clips that are alike"
        )
    for warning in metrics["warnings"]:
        console.print(f"note: {warning}")
    return buffer.getvalue()

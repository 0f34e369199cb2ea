"""The headline: what was asked of the swaps, with chance, controls and ceiling beside it, as rows and as text."""

import io
from dataclasses import dataclass
from typing import Any

Figure = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One line of the headline table."""

    title: str
    name: str
    """Dotted name in metrics.json."""
    figure: Figure
    ceiling: float | None
    """The same of the `perfect` control: real clips through the judge."""
    lower_is_better: bool
    controls: dict[str, float | None]
    """The same of the other controls."""


def headline(metrics: dict[str, Any]) -> list[Row]:
    """Accuracy of the action, of each attribute and of all attributes at once; then leakage of each factor."""
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


def text_table(metrics: dict[str, Any]) -> str:
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
        interval = f"{100 * figure['low']:.1f} – {100 * figure['high']:.1f}"
        table.add_row(row.title, percent(figure["value"]), interval, percent(figure["chance"]), percent(row.ceiling))
    buffer = io.StringIO()
    console = Console(file=buffer, width=100, force_terminal=False)
    console.print(table)
    console.print("chance: an output that has nothing to do with the pair; ceiling: real clips through the same judge")
    console.print("leaks: the output still shows what was to be replaced; a perfect swap has 0")
    for warning in metrics["warnings"]:
        console.print(f"note: {warning}")
    return buffer.getvalue()

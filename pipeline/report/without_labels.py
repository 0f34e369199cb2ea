"""The table of metrics that need no label, each with its meaning in one line: the headline where there is no judge."""

from dataclasses import dataclass

from pipeline.report.metric_format import Metric, Metrics


@dataclass(frozen=True)
class LabelFreeRow:
    """One row of the table."""

    title: str
    name: str
    """Dotted name in metrics.json."""
    metric: Metric
    meaning: str
    best: str
    """The value of a perfect model; empty for a reference that involves no model."""
    ceiling: float | None
    """What real clips in place of the transfers score, where that can be measured."""


_ROWS = (
    ("looks like the donor", "likeness.identity", "100%",
     "Share of other people's clips that look less like the transfer than the donor of the appearance, by colours."),
    ("moves like the donor", "likeness.action", "100%",
     "Share of other people's clips that move less like the transfer than the donor of the motion, by where and when."),
    ("appearance leaks", "likeness.leakage.identity", "50%",
     "The same for the appearance of the clip that gave the motion: 50% is none, 100% a copy."),
    ("motion leaks", "likeness.leakage.action", "50%",
     "The same for the motion of the clip that gave the appearance: 50% is none, 100% a copy."),
    ("static code survives", "cycle.static", "1",
     "The transfer, encoded again, is nearer to the static code of its donor than this share of other clips."),
    ("dynamics code survives", "cycle.dynamics", "1",
     "The same for the dynamics code; below 1 where many clips show the same motion."),
    ("moving pixels, dB above a still", "moving.self_swap.gain", "high",
     "A clip decoded from its own codes against its first frame repeated, where pixels move: 0 or below is worthless."),
    ("by poses, dB above a still", "moving.poses.gain", "high",
     "The same decoded from the pose of every frame: what stage 1 allows at best."),
    ("motion, relative to real clips", "smoothness.change", "1",
     "Change from frame to frame: below 1 transfers are stiller than real clips, above 1 they jump."),
    ("jerkiness, relative to real clips", "smoothness.acceleration", "1",
     "Change of that change: above the row before, transfers flicker."),
)  # fmt: skip


def label_free_rows(metrics: Metrics) -> list[LabelFreeRow]:
    """Return the rows of the metrics that were measured.

    The ceiling of `likeness.identity` is `likeness.real`, that of others the control `perfect`, which only labelled
    data has.
    """
    values, perfect = metrics["figures"], metrics["controls"].get("perfect", {})
    rows = []
    for title, name, best, meaning in _ROWS:
        if name in values:
            real = values.get("likeness.real") if name == "likeness.identity" else None
            ceiling = (real or perfect.get(name, {})).get("value")
            rows.append(LabelFreeRow(title, name, values[name], meaning, best, ceiling))
    return rows


def label_free_sentence(metrics: Metrics) -> str:
    """Return what these metrics say of a transfer in one or two sentences; empty without them."""
    values = metrics["figures"]
    identity, action = values.get("likeness.identity"), values.get("likeness.action")
    if identity is None or action is None:
        return ""
    text = (
        f"A transfer looks more like the donor of its appearance than {_percent(identity)} of other people's clips do, "
        f"and moves more like the donor of its motion than {_percent(action)} of them (chance 50%)."
    )
    gain = values.get("moving.self_swap.gain") or values.get("moving.poses.gain")
    if gain is None:
        return text
    side = "better" if gain["value"] > 0 else "worse"
    against = f"{abs(gain['value']):.1f} dB {side} than their first frame repeated"
    return f"{text} Where pixels move, decoded clips are {against}."


def _percent(metric: Metric) -> str:
    return f"{100 * metric['value']:.0f}%"

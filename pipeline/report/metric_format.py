"""How metrics are written: as a percentage or as a number, with their interval, and which direction is better."""

from typing import Any

Metric = dict[str, Any]
"""One entry of `figures` in metrics.json: value, n, chance, low and high."""
Metrics = dict[str, Any]
"""The content of metrics.json; see `pipeline.evaluation.schema`."""

_SHARES = ("judge", "swap", "leakage", "pose_swap", "pose_leakage", "prior", "consistency", "probe", "likeness", "dci",
           "exploration")  # fmt: skip
"""First parts of the names of metrics that are shares of clips or pairs, if not about a number."""
_NUMBERS = ("r2", "mse", "psnr", "ssim", "mae", "is", "h_y", "h_y_given_x")
"""Parts of a name that make the metric a plain number nevertheless."""
MISSING = "–"


def percent(value: float | None) -> str:
    """Return a share such as `97.5%`, or a dash for None."""
    return MISSING if value is None else f"{100 * value:.1f}%"


def is_share(name: str, metrics: Metrics) -> bool:
    """Return whether a metric is written as a percentage: a share of clips or pairs, not a distance or an R2."""
    parts = name.split(".")
    if parts[0] not in _SHARES or any(part in _NUMBERS for part in parts):
        return False
    # The probe of a continuous factor has an R2.
    return parts[0] != "probe" or len(parts) < 3 or parts[2] in metrics["vocabulary"]


def format_value(value: float | None, share: bool) -> str:
    """Return a value as the report writes it, or a dash for None."""
    if value is None:
        return MISSING
    return percent(value) if share else f"{value:.4g}"


def format_interval(metric: Metric, share: bool) -> str:
    """Return both ends of a metric's interval, or a dash if it has none."""
    low, high = metric["low"], metric["high"]
    if low is None or high is None:
        return MISSING
    return f"{100 * low:.1f} – {100 * high:.1f}" if share else f"{low:.4g} – {high:.4g}"


def direction(name: str) -> int:
    """Return 1 if a higher value of the metric is better, -1 if a lower one is, and 0 if neither is."""
    parts = name.split(".")
    if "leakage" in parts or parts[0] in ("pose_leakage", "frechet") or parts[-1] == "h_y_given_x":
        return -1
    if parts[0] == "moving" and parts[1] in ("first_frame", "share"):
        return 0
    if parts[-1] in ("mse", "gradient"):
        return -1
    if parts[0] == "moving":
        return 1
    if name in ("likeness.identity", "likeness.action"):
        return 1
    if parts[0] in ("swap", "pose_swap", "prior", "reconstruction", "consistency", "cycle", "elbo", "is", "h_y", "dci",
                    "exploration"):  # fmt: skip
        return 1
    # Whether a probe's value is good depends on its code; the judge, the still image and the likeness of real clips do
    # not depend on the model; the smoothness is best at 1.
    return 0

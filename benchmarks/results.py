"""The table of docs/results/sprites-metrics.md, from the evaluations of runs: seeds of one recipe become one column.

    python benchmarks/results.py REPORT REPORT ... > table.md      # --all: every metric

REPORT is a folder written by `vdsm evaluate --out`, or a run that contains one. Runs whose recipes differ only in the
seed share a column: their mean and the 95% interval of Student's t, which covers the spread between trainings; for two
runs, both values. A single run has its own interval, over test identities. Samples of other systems share a column if
they were evaluated under the same `--system`. All must be measured on the same pairs of clips.
"""

import argparse
import json
import math
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.report.comparison import Report, check_comparable, read_reports
from pipeline.report.metric_format import Metric, format_value, is_share

CONTROLS = ("renderer", "ignores_static", "ignores_dynamics", "shuffled")
T_975 = {3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Student's t by the number of seeds."""
DETAIL = re.compile(
    r"prior\.(static\.leakage|static\..*h_y|dynamics\.static\..*accuracy|dynamics\.(is|h_))|\.mlp$|frechet\.(?!judge\.swap)"
)
"""Metrics that are shown with `--all` only."""
PARTS = (
    ("Swaps: the action of one clip, the identity of another", ("swap.",)),
    ("Leakage: what should have been replaced", ("leakage.",)),
    ("With one code drawn from the prior", ("prior.",)),
    (
        "The usual metrics: the action of clips with an identity from the prior, in nats",
        ("is", "h_y_given_x", "h_y"),
    ),
    ("Reconstructions", ("consistency.", "reconstruction.")),
    ("Probes on the codes", ("probe.",)),
    ("Distances of the judge's features", ("frechet.",)),
)


def main() -> None:
    """Read the reports and print the table."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("reports", nargs="+", help="folders of evaluations, or of runs that contain one")
    command.add_argument("--all", action="store_true", help="print every metric")
    options = command.parse_args()
    reports = read_reports(options.reports)
    for note in check_comparable(reports):
        print(f"Note: {note}", file=sys.stderr)
    groups: dict[str, list[Report]] = defaultdict(list)
    for report in reports:
        groups[column_key(report)].append(report)
    columns = list(groups.values())
    all_metrics = [report.metrics for report in reports]
    figures = first_of(metrics["figures"] for metrics in all_metrics)
    measured = {name: first_of(metrics["controls"].get(name, {}) for metrics in all_metrics) for name in CONTROLS}
    controls = [name for name in CONTROLS if measured[name]]
    titles = [column_title(column) for column in columns]
    print(f"| | {' | '.join(titles)} | {' | '.join(f'`{name}`' for name in controls)} | chance |")
    print("|---" * (len(columns) + len(controls) + 2) + "|")
    for title, starts in PARTS:
        names = [name for name in figures if name.startswith(starts)]
        names = [name for name in names if options.all or not DETAIL.search(name)]
        if names:
            print(f"| **{title}** |" + " |" * (len(columns) + len(controls) + 1))
        for name in names:
            share = is_share(name, all_metrics[0])
            cells = [
                over_seeds([report.metrics["figures"].get(name) for report in column], share) for column in columns
            ]
            control_values = [(measured[control].get(name) or {}).get("value") for control in controls]
            cells += [format_value(value, share) for value in (*control_values, figures[name]["chance"])]
            print(f"| `{name}` | {' | '.join(cells)} |")


def column_key(report: Report) -> str:
    """Return what the reports of one column share: the recipe without its seed, or the system that made the samples."""
    source = report.metrics["provenance"]
    if report.is_samples:
        return f"samples {source.get('system') or report.url}"
    return json.dumps({key: value for key, value in source["recipe"].items() if key != "seed"}, sort_keys=True)


def column_title(column: Sequence[Report]) -> str:
    """Return the names of the reports of a column, or of their system, and their number."""
    system = column[0].metrics["provenance"].get("system")
    names = system or ", ".join(report.name for report in column)
    return f"{names} (n = {len(column)})".replace("|", "\\|")


def first_of(every: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return each name of any of the dictionaries with the first value that it has, sorted by name."""
    found: dict[str, Any] = {}
    for values in every:
        found = {**values, **found}
    return dict(sorted(found.items()))


def over_seeds(metrics: Sequence[Metric | None], share: bool) -> str:
    """Format mean and interval of one metric over the runs of a column; a dash if a run does not have it."""
    present = [metric for metric in metrics if metric]
    if len(present) < len(metrics):
        return format_value(None, share)
    values = [metric["value"] for metric in present]
    if len(values) == 2:  # too few for a useful interval
        return " and ".join(format_value(value, share) for value in values)
    low, high = present[0]["low"], present[0]["high"]
    mean = statistics.mean(values)
    if len(values) > 1:
        half = T_975[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
        low, high = mean - half, mean + half
        if share:
            low, high = max(0.0, low), min(1.0, high)
    return f"{format_value(mean, share)} ({format_value(low, share)} to {format_value(high, share)})"


if __name__ == "__main__":
    main()

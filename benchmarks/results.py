"""The table of docs/results.md, from the evaluations of runs: seeds of one recipe become one column.

    python benchmarks/results.py REPORT REPORT ... > table.md      # --all: every figure

REPORT is a folder that `vdsm evaluate --out` wrote, or a run with one in it. Runs whose recipes differ in nothing but
the seed stand together: the mean over them and the 95% interval of Student's t, which holds the spread between
trainings; of two runs, both values. A single run has its own interval, over test identities. All must be measured on
the same pairs of clips.
"""

import argparse
import json
import math
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence

from pipeline.report.comparison import Report, check_comparable, read_reports
from pipeline.report.table import Metric, is_share, written

CONTROLS = ("renderer", "ignores_static", "ignores_dynamics", "shuffled")
T_975 = {3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Student's t by the number of seeds."""
DETAIL = re.compile(
    r"prior\.(static\.leakage|static\..*h_y|dynamics\.static\..*accuracy|dynamics\.(is|h_))|\.mlp$|frechet\.(?!judge\.swap)"
)
"""Figures that are shown with `--all` only."""
PARTS = (
    ("Swaps: the action of one clip, the identity of another", ("swap.",)),
    ("What shows that was to be replaced", ("leakage.",)),
    ("With one code drawn from the prior", ("prior.",)),
    (
        "The field's table, of the action of clips with an identity from the prior, in nats",
        ("is", "h_y_given_x", "h_y"),
    ),
    ("Reconstructions", ("consistency.", "reconstruction.")),
    ("What probes read from the codes", ("probe.",)),
    ("Distances of the judge's features", ("frechet.",)),
)


def main(words: Sequence[str]) -> None:
    """Read and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("reports", nargs="+", help="folders of evaluations, or of runs with one in it")
    parser.add_argument("--all", action="store_true", help="every figure")
    options = parser.parse_args(words)
    reports = read_reports(options.reports)
    for note in check_comparable(reports):
        print(f"Note: {note}", file=sys.stderr)
    groups: dict[str, list[Report]] = defaultdict(list)
    for report in reports:
        recipe = {key: value for key, value in report.metrics["provenance"]["recipe"].items() if key != "seed"}
        groups[json.dumps(recipe, sort_keys=True)].append(report)
    columns = list(groups.values())
    first = reports[0].metrics
    controls = [name for name in CONTROLS if name in first["controls"]]
    titles = [f"{', '.join(report.name for report in column)} (n = {len(column)})" for column in columns]
    print(f"| | {' | '.join(titles)} | {' | '.join(f'`{name}`' for name in controls)} | chance |")
    print("|---" * (len(columns) + len(controls) + 2) + "|")
    for title, starts in PARTS:
        names = [name for name in first["figures"] if name.startswith(starts)]
        names = [name for name in names if options.all or not DETAIL.search(name)]
        if names:
            print(f"| **{title}** |" + " |" * (len(columns) + len(controls) + 1))
        for name in names:
            share = is_share(name, first)
            cells = [
                over_seeds([report.metrics["figures"].get(name) for report in column], share) for column in columns
            ]
            beside = [(first["controls"][control].get(name) or {}).get("value") for control in controls]
            cells += [written(value, share) for value in (*beside, first["figures"][name]["chance"])]
            print(f"| `{name}` | {' | '.join(cells)} |")


def over_seeds(figures: Sequence[Metric | None], share: bool) -> str:
    """Mean and interval of one figure over the runs of a column; a dash where a run does not have it."""
    there = [figure for figure in figures if figure]
    if len(there) < len(figures):
        return written(None, share)
    values = [figure["value"] for figure in there]
    if len(values) == 2:  # too few for an interval that says anything
        return " and ".join(written(value, share) for value in values)
    low, high = there[0]["low"], there[0]["high"]
    mean = statistics.mean(values)
    if len(values) > 1:
        half = T_975[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
        low, high = mean - half, mean + half
        if share:
            low, high = max(0.0, low), min(1.0, high)
    return f"{written(mean, share)} ({written(low, share)} to {written(high, share)})"


if __name__ == "__main__":
    main(sys.argv[1:])

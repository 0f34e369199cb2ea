"""`vdsm compare`: several evaluations side by side: compare.html and compare.json."""

if not __package__:  # run by path: import from the repository, not from this file's folder
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import itertools
import json
import sys
from typing import Any

from cluster.cli.run import entry
from cluster.cli.settings import Controls, Section
from cluster.errors import UserError
from cluster.storage import api as storage


class CompareCommand(Section, Controls):
    """Put evaluations of several runs side by side: vdsm compare REPORT REPORT ... --out FOLDER"""

    reports: list[str]
    """Folders that `vdsm evaluate --out` wrote, or runs with a `report` folder in them; given first, without an option.
    They may be s3://bucket/prefix."""
    out: str
    """Folder for compare.html and compare.json; may be s3://bucket/prefix."""


def _with_reports_first(words: list[str]) -> list[str]:
    first = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
    return [*(["--reports", *first] if first else []), *words[len(first) :]]


def compare(command: CompareCommand) -> dict[str, Any]:
    """Compare and write; returns what compare.json holds.

    Raises:
        UserError: fewer than two evaluations, one that is not there, or some that were measured on different things.
    """
    if len(command.reports) < 2:
        raise UserError("give at least two reports to compare: vdsm compare REPORT REPORT ... --out FOLDER")
    # Pictures and templates take a second to import.
    from pipeline.report.comparison import check_comparable, comparison, read_reports

    reports = read_reports(command.reports)
    compared = comparison(reports, check_comparable(reports))
    storage.check_writable(command.out)
    places = [storage.join(command.out, name) for name in ("compare.json", "compare.html")]
    if command.dry_run:
        sys.stdout.write("".join(f"would write {place}\n" for place in places))
        return compared
    from pipeline.report.compare_page import render_comparison

    storage.write_bytes(places[0], (json.dumps(compared, indent=1, allow_nan=False) + "\n").encode())
    storage.write_bytes(places[1], render_comparison(reports, compared).encode())
    sys.stdout.write("".join(f"{place}\n" for place in places))
    return compared


main = entry(CompareCommand, compare, prog="vdsm compare", prepare=_with_reports_first)


if __name__ == "__main__":
    main()

"""`vdsm compare`: several evaluations side by side: compare.html and compare.json."""

if not __package__:  # run by path: import from the repository, not from this file's folder
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import itertools
import json
import sys
from collections.abc import Sequence
from typing import Any

from cluster import storage
from cluster.command_line import UserError, parse, run
from cluster.settings import Controls
from preprocessing.config import Section


class CompareCommand(Section, Controls):
    """Put evaluations of several runs side by side: vdsm compare REPORT REPORT ... --out FOLDER"""

    reports: list[str]
    """Folders that `vdsm evaluate --out` wrote, or runs with a `report` folder in them; given first, without an option.
    They may be s3://bucket/prefix."""
    out: str
    """Folder for compare.html and compare.json; may be s3://bucket/prefix."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        argv: its words; those of the process if absent.
    """
    run(_main, argv)


def _main(words: list[str]) -> None:
    first = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
    words = [*(["--reports", *first] if first else []), *words[len(first) :]]
    compare(parse(CompareCommand, words, prog="vdsm compare"))


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


if __name__ == "__main__":
    main()

"""`vdsm compare`: compare evaluations side by side; writes compare.html and compare.json."""

if __name__ == "__main__":  # import from the repository, not from this file's or the working folder
    import sys
    from pathlib import Path

    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import json
import sys
from typing import Any

from cluster.cli.paths import Location
from cluster.cli.run import entry, first_as
from cluster.cli.settings import Controls, Section
from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.lock import output_lock


class CompareCommand(Section, Controls):
    """Compare evaluations of several runs side by side: vdsm compare REPORT REPORT ... --out FOLDER"""

    reports: list[Location]
    """Folders written by `vdsm evaluate --out`, or runs with a `report` folder in them; give them first, as
    positional arguments. They may be s3://bucket/prefix."""
    out: Location
    """Folder for compare.html and compare.json; may be s3://bucket/prefix."""


def compare(command: CompareCommand) -> dict[str, Any]:
    """Write the comparison and return the content of compare.json.

    Raises:
        UserError: there are fewer than two reports, one is missing, they are not comparable, or another process writes
            into the same folder.
    """
    if len(command.reports) < 2:
        raise UserError("give at least two reports to compare: vdsm compare REPORT REPORT ... --out FOLDER")
    # Pillow and Jinja take a second to import, which --help should not wait for.
    from pipeline.report.comparison import check_comparable, comparison, read_reports

    reports = read_reports(command.reports)
    compared = comparison(reports, check_comparable(reports))
    storage.check_writable(command.out)
    urls = [storage.join(command.out, name) for name in ("compare.json", "compare.html")]
    if command.dry_run:
        sys.stdout.write("".join(f"would write {url}\n" for url in urls))
        return compared
    from pipeline.report.compare_page import render_comparison

    with output_lock(command.out):
        storage.write_bytes(urls[0], (json.dumps(compared, indent=1, allow_nan=False) + "\n").encode())
        storage.write_bytes(urls[1], render_comparison(reports, compared).encode())
    sys.stdout.write("".join(f"{url}\n" for url in urls))
    return compared


main = entry(CompareCommand, compare, prog="vdsm compare", prepare=first_as("--reports"))


if __name__ == "__main__":
    main()

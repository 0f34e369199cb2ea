"""`vdsm recommend`: look at a dataset and at this machine, and write a commented recipe for `vdsm train`."""

if __name__ == "__main__":  # import from the repository, not from this file's or the working folder
    import sys
    from pathlib import Path

    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import logging
import sys

from pydantic import Field

from cluster.cli.paths import Location
from cluster.cli.run import entry
from cluster.cli.settings import Controls, Section
from cluster.errors import UserError
from cluster.storage import api as storage

log = logging.getLogger(__name__)


class RecommendCommand(Section, Controls):
    """Look at a dataset and at this machine, and write a commented recipe for `vdsm train`."""

    data: Location
    """Dataset: the folder or s3://bucket/prefix that `vdsm shard` wrote."""
    out: Location | None = None
    """YAML file to write, which must not exist; may be in s3://bucket/prefix. none prints it."""
    measure_s: float = Field(default=10.0, ge=0, le=3600)
    """Seconds for which real steps are measured, to estimate the time of the training; 0 measures none."""


def recommend(command: RecommendCommand) -> None:
    """Write the recipe, and print what is doubtful about the data.

    Raises:
        UserError: the data is missing, damaged or of a shape that the model cannot take, or the file exists.
    """
    if command.out is not None and storage.exists(command.out):
        raise _exists(command.out)
    # torch takes seconds to import, which --help and invalid input should not wait for.
    from pipeline.recommendation.recommend import recommendation
    from pipeline.runs.store import absolute

    measure_s = 0 if command.dry_run else command.measure_s
    text, warnings = recommendation(absolute(command.data), measure_s, name=command.out or "mine.yaml")
    for warning in warnings:
        log.warning("%s", warning)
    if command.out is None or command.dry_run:
        sys.stdout.write(text)
        return
    if not storage.create(command.out, text.encode()):  # another process was faster
        raise _exists(command.out)
    sys.stdout.write(f"{command.out}\n")


def _exists(out: str) -> UserError:
    return UserError(f"{out} exists; name another file with --out, or remove it")


def _without_name(args: list[str]) -> list[str]:
    if args and not args[0].startswith("-"):
        raise UserError(
            f"a recipe for data needs --data; `vdsm recipes {args[0]}` prints one that comes with the package"
        )
    return args


main = entry(RecommendCommand, recommend, prog="vdsm recommend", prepare=_without_name)


if __name__ == "__main__":
    main()

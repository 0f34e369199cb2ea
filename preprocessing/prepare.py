"""`vdsm prepare`: find cuts, people and near-duplicates in recordings, and write the sidecar that `vdsm shard` reads.

Rerun it to examine the videos that are missing. Everything that it decides is in files that can be read and edited.
"""

if __name__ == "__main__":  # import from the repository, not from this file's or the working folder
    import sys
    from pathlib import Path

    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

from typing import ClassVar

from cluster.cli.paths import Location
from cluster.cli.run import entry
from cluster.cli.settings import Controls
from preprocessing.preparing.config import PrepareRecipe


class PrepareCommand(PrepareRecipe, Controls):
    """Find cuts, people and near-duplicates in videos, and write a sidecar for `vdsm shard` and a page that shows every
    decision. If interrupted, rerun it to resume."""

    MAIN: ClassVar[tuple[str, ...]] = ("source.path", "source.videos.fps", "source.videos.clip_frames", "prepare")
    UNUSED: ClassVar[tuple[str, ...]] = (
        "seed",
        *(f"source.{name}" for name in ("frames", "arrays", "figures", "moving_mnist", "pendulum")),
        *(f"shards.{name}" for name in ("target_mb", "max_rejected_share")),
    )

    out: Location
    """Folder or s3://bucket/prefix of the sidecar, the page and the records."""


def prepare(command: PrepareCommand) -> None:
    """Write the sidecar, or print what would be examined."""
    from preprocessing.preparing.job import prepare_source

    prepare_source(command, command.out, dry_run=command.dry_run)


main = entry(PrepareCommand, prepare, prog="vdsm prepare")


if __name__ == "__main__":
    main()

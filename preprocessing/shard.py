"""`vdsm shard`: convert a source of clips to WebDataset shards and a manifest, in a folder or in S3.

The same command produces the same bytes, whatever was killed in between and however many tasks ran at once. Rerun it to
write the missing shards.
"""

if __name__ == "__main__":  # import from the repository, not from this file's or the working folder
    import sys
    from pathlib import Path

    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

from typing import ClassVar

from cluster.cli.paths import Location
from cluster.cli.run import entry
from cluster.cli.settings import Controls
from preprocessing.recipe import SOURCE_SETTINGS, DataRecipe


class ShardCommand(DataRecipe, Controls):
    """Convert a source of clips to WebDataset shards and a manifest. If interrupted, rerun it to resume."""

    MAIN: ClassVar[tuple[str, ...]] = ("seed", *SOURCE_SETTINGS, "shards.format")

    out: Location
    """Folder or s3://bucket/prefix of the dataset."""


def shard(command: ShardCommand) -> None:
    """Write the dataset, or print what would be written."""
    from preprocessing.sharding.job import shard_source

    shard_source(command, command.out, dry_run=command.dry_run)


main = entry(ShardCommand, shard, prog="vdsm shard")


if __name__ == "__main__":
    main()

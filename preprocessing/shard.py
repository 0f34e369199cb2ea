"""`vdsm shard`: from a source to WebDataset shards and a manifest, in a folder or in S3.

The same command gives the same bytes, whatever was killed in between and however many tasks ran at once: started again,
it writes the shards that are missing.
"""

if not __package__:  # run by path: import from the repository, not from this file's folder
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
import logging
import sys

from cluster import command_line, ray_runtime, storage
from cluster.settings import Controls
from preprocessing import manifest, plan
from preprocessing.config import DataRecipe
from preprocessing.shard_file import finished
from preprocessing.shard_tasks import write_shards
from preprocessing.sources import make_source

log = logging.getLogger(__name__)


class ShardCommand(DataRecipe, Controls):
    """Turn a source into shards. Started again after an interruption, it goes on where it was."""

    out: str
    """Folder or s3://bucket/prefix of the dataset."""


def main(argv: list[str] | None = None) -> None:
    """The command's entry."""
    command_line.run(lambda words: shard(command_line.parse(ShardCommand, words, prog="vdsm shard")), argv)


def shard(command: ShardCommand) -> None:
    """Write what is missing of the dataset, then its manifest.

    Raises:
        UserError: a source file is missing, or `out` was begun with other settings or inputs, or cannot be written.
    """
    source = make_source(command.source, command.seed)
    planned = plan.make_plan(command, source)
    if command.dry_run:
        _report_plan(command.out, planned)
        return
    plan.claim(command.out, planned)
    identity = planned.sha256()
    indexes = {one.path: finished(command.out, identity, one) for one in planned.shards}
    missing = [one for one in planned.shards if indexes[one.path] is None]
    if not missing and _is_complete(command.out, identity):
        log.info("all %d shards are there already", len(planned.shards))
    else:
        if len(missing) < len(planned.shards):
            log.info("%d of %d shards are there already", len(planned.shards) - len(missing), len(planned.shards))
        if missing:
            with ray_runtime.connect():
                for stats in write_shards(command.out, planned, missing, command):
                    indexes[stats["shard"]] = stats
        manifest.write_manifest(command.out, planned, source, [one for one in indexes.values() if one])
        storage.remove_partial_files(command.out)
    _report(command.out)


def _is_complete(url: str, plan_sha256: str) -> bool:
    try:
        stored = json.loads(storage.read_bytes(storage.join(url, manifest.FILE)))
        return bool(stored["plan_sha256"] == plan_sha256)
    except (storage.MissingFile, ValueError, KeyError, TypeError):
        return False


def _report_plan(url: str, planned: plan.Plan) -> None:
    for split, sizes in plan.estimate(planned).items():
        clips = f"{sizes['clips']:,} clips" if sizes["clips"] is not None else f"clips of {sizes['items']:,} inputs"
        sys.stdout.write(f"{split}: {clips}, shards: {sizes['shards']}, about {sizes['mb']:,.1f} MB\n")
    sys.stdout.write(f"nothing was written; without --dry-run this would go to {url}\n")


def _report(url: str) -> None:
    splits = json.loads(storage.read_bytes(storage.join(url, manifest.FILE)))["splits"]
    for split, totals in splits.items():
        sys.stdout.write(
            f"{split}: {totals['clips']:,} clips of {totals['identities']:,} identities, shards: {totals['shards']}, "
            f"{totals['size_bytes'] / 1e6:,.1f} MB\n"
        )
    sys.stdout.write(f"dataset: {url}\n")


if __name__ == "__main__":
    main()

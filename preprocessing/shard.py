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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cluster import ray_runtime
from cluster.cli.run import entry
from cluster.cli.settings import Controls
from cluster.errors import UserError
from cluster.storage import api as storage
from preprocessing.clip import Source
from preprocessing.recipe import DataRecipe
from preprocessing.sharding import manifest, plan, rejects
from preprocessing.sharding.output_lock import claim
from preprocessing.sharding.progress import Progress
from preprocessing.sharding.tasks import write_shards
from preprocessing.sharding.write_shard import Summary, finished
from preprocessing.sources import make_source

log = logging.getLogger(__name__)

R = TypeVar("R")

LOOKS_AT_ONCE = 16
"""Indexes of finished shards that are read at the same time."""


class ShardCommand(DataRecipe, Controls):
    """Turn a source into shards. Started again after an interruption, it goes on where it was."""

    out: str
    """Folder or s3://bucket/prefix of the dataset."""


def shard(command: ShardCommand) -> None:
    """Write what is missing of the dataset, then what is to be read of it, its manifest last.

    Raises:
        UserError: a source file is missing, or `out` was begun with other settings or inputs, or cannot be written.
    """
    source = make_source(command.source, command.seed)
    planned = plan.make_plan(command, source)
    storage.exists(storage.join(command.out, manifest.FILE))  # a wrong address or key is said now, not after patience
    _patiently(command, lambda: claim(command.out, planned, store=not command.dry_run))
    if command.dry_run:
        from preprocessing.sharding.dry_run import report_plan

        report_plan(command, command.out, planned, source)
        return
    done = _patiently(command, lambda: _shards_there(command.out, planned))
    missing = [one for one in planned.shards if one.path not in done]
    if not missing and _is_complete(command.out, planned):
        log.info("all %d shards are there already", len(planned.shards))
    else:
        if done:
            log.info("%d of %d shards are there already", len(done), len(planned.shards))
        if missing:
            with ray_runtime.connect():
                _write_missing(command, source, planned, missing, done)
        _complete(command, planned, source, [done[one.path] for one in planned.shards])
    _report(command.out)


def _patiently(command: ShardCommand, action: Callable[[], R]) -> R:
    """What an action returns that may be repeated, tried again while storage does not answer."""
    return storage.patiently(action, command.shards.patience_seconds)


def _shards_there(url: str, planned: plan.Plan) -> dict[str, Summary]:
    """Path -> summary of the shards that are whole."""
    with ThreadPoolExecutor(LOOKS_AT_ONCE) as pool:
        found = pool.map(lambda one: finished(url, planned.identity, one), planned.shards)
        return {one.path: summary for one, summary in zip(planned.shards, found, strict=True) if summary}


def _write_missing(
    command: ShardCommand, source: Source, planned: plan.Plan, missing: list[plan.ShardPlan], done: dict[str, Summary]
) -> None:
    """Write the missing shards and put their summaries into `done`; stop when the input is plainly wrong."""
    sizes = {one.path: len(one.items) for one in planned.shards}
    inputs = sum(sizes.values())
    total = sum(one.estimated_bytes for one in missing)
    with Progress(shards=len(missing), total_bytes=total) as progress:
        _check_share(command, planned, done, sizes, inputs)
        for written in write_shards(command.out, planned, missing, command, source):
            if written is not None:
                shard, summary = written
                done[shard.path] = summary
                index = summary.index
                progress.advance(
                    clips=index["clips"],
                    size=index["size_bytes"],
                    estimated=shard.estimated_bytes,
                    rejects=len(index["rejects"]),
                )
                _check_share(command, planned, done, sizes, inputs)
            progress.refresh()


def _check_share(
    command: ShardCommand, planned: plan.Plan, done: dict[str, Summary], sizes: dict[str, int], inputs: int
) -> None:
    empty = sum(not record["clips"] for one in done.values() for record in one.index["rejects"])
    tried = sum(sizes[path] for path in done)
    limit = command.shards.max_rejected_share
    try:
        rejects.check_share(command.out, empty=empty, tried=tried, inputs=inputs, limit=limit)
    except UserError:
        _write_rejects(command.out, planned, done)
        raise


def _write_rejects(url: str, planned: plan.Plan, done: dict[str, Summary]) -> bytes:
    known = (done[one.path] for one in planned.shards if one.path in done)
    return rejects.write_rejects(url, (record for one in known for record in one.index["rejects"]))


def _complete(command: ShardCommand, planned: plan.Plan, source: Source, summaries: list[Summary]) -> None:
    """Everything that follows the last shard."""
    from preprocessing.sharding.preview import write_preview

    url = command.out
    inputs = sum(len(one.items) for one in planned.shards)
    rejected = _patiently(command, lambda: _write_rejects(url, planned, {one.index["shard"]: one for one in summaries}))
    rejects.check_any(url, sum(one.index["clips"] for one in summaries), inputs)
    made = _patiently(command, lambda: manifest.make_manifest(url, planned, source, summaries, rejected))
    _patiently(command, lambda: write_preview(url, made, rejected))
    storage.remove_partial_files(url)
    _patiently(command, lambda: manifest.write_manifest(url, made))


def _is_complete(url: str, planned: plan.Plan) -> bool:
    """Whether everything that follows the last shard is there."""
    try:
        stored = json.loads(storage.read_bytes(storage.join(url, manifest.FILE)))
        others = all(storage.exists(storage.join(url, name)) for name in (rejects.FILE, "preview.html"))
        return bool(stored["plan_sha256"] == planned.identity) and others
    except (storage.MissingFileError, ValueError, KeyError, TypeError):
        return False


def _report(url: str) -> None:
    content = json.loads(storage.read_bytes(storage.join(url, manifest.FILE)))
    for split, totals in content["splits"].items():
        bad = f", rejects: {totals['rejects']:,} of {totals['inputs']:,} inputs" if totals["rejects"] else ""
        sys.stdout.write(
            f"{split}: {totals['clips']:,} clips of {totals['identities']:,} identities, shards: {totals['shards']}, "
            f"{totals['size_bytes'] / 1e6:,.1f} MB{bad}\n"
        )
        if not totals["clips"]:
            log.warning("the %s split has no clip: every input of it was rejected", split)
    groups = sum(totals["groups"] for totals in content["splits"].values())
    sys.stdout.write(f"none of the {groups:,} groups is in two splits, no identity either\n")
    if any(totals["rejects"] for totals in content["splits"].values()):
        sys.stdout.write(f"rejects: {storage.join(url, rejects.FILE)}\n")
    sys.stdout.write(f"preview: {storage.join(url, 'preview.html')}\n")
    sys.stdout.write(f"dataset: {url}\n")


main = entry(ShardCommand, shard, prog="vdsm shard")


if __name__ == "__main__":
    main()

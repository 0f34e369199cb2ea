"""The sharding job: plan, acquire the output, write the missing shards, complete the dataset, report.

A shard's index is written after its tar and marks it as complete; the manifest is written last. A rerun therefore
writes only what is missing, and ends with the same bytes.
"""

import hashlib
import importlib.util
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cluster import ray_runtime
from cluster.cli.progress import ProgressDisplay
from cluster.errors import UserError
from cluster.extras import remedy, require
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from preprocessing.clip import Source
from preprocessing.dataset import schema
from preprocessing.dataset.format import COLUMNAR, MANIFEST, REJECTS, TABLE, Manifest, ManifestHead, TableManifest
from preprocessing.dataset.index import CONCURRENT_READS, ShardSummary
from preprocessing.dataset.manifest import write_manifest
from preprocessing.dataset.upgrade import upgrade_dataset
from preprocessing.recipe import DataRecipe
from preprocessing.sharding.dry_run import print_plan, take_sample
from preprocessing.sharding.manifest import make_manifest
from preprocessing.sharding.output_lock import acquire_output, stored_version
from preprocessing.sharding.plan import MOST_JSON_CLIPS, Plan, ShardPlan, make_plan
from preprocessing.sharding.preview import has_preview, write_preview
from preprocessing.sharding.rejects import check_any, check_share, is_failed, write_rejects
from preprocessing.sharding.report import print_report
from preprocessing.sharding.tasks import write_shards
from preprocessing.sharding.throughput import Throughput
from preprocessing.sharding.write_shard import find_finished_shard
from preprocessing.sources.registry import make_source

log = logging.getLogger(__name__)

R = TypeVar("R")

_PHASES = 5
"""Phases of progress when shards are written."""


def shard_source(recipe: DataRecipe, out: str, *, dry_run: bool = False) -> None:
    """Turn the recipe's source into a dataset at `out`, and print what it holds. Rerun it to resume.

    Args:
        recipe: the source, the seed, and how clips are packed into shards.
        out: folder or s3://bucket/prefix of the dataset.
        dry_run: print what would be written, and write nothing.

    Raises:
        UserError: a source file is missing, `out` belongs to other settings or inputs, or `out` cannot be written.
    """
    if not dry_run:
        require("ray")
    with ProgressDisplay(phases=2 if dry_run else _PHASES) as progress:
        progress.start("listing the inputs")
        source = make_source(recipe.source, recipe.seed)
        plan = make_plan(recipe, source)
        storage.exists(storage.join(out, MANIFEST))  # a wrong address or key fails now, not after retries
        plan, chosen = _choose_format(recipe, out, plan)
        job = _Job(recipe, out, source, plan, progress)
        job.acquire_output(store=not dry_run)
        if dry_run:
            progress.start("sampling the inputs")
            sample = take_sample(recipe, plan, source)
        else:
            job.run(chosen)
    # Outside the block: while a bar is shown, standard output is redirected to it.
    if dry_run:
        print_plan(recipe, out, plan, sample, chosen)
    else:
        print_report(out)


def _choose_format(recipe: DataRecipe, out: str, plan: Plan) -> tuple[Plan, str]:
    """Return the plan in the format of the dataset, and a line that says which that is and why.

    Raises:
        UserError: it is format 3, and pyarrow is not installed.
    """
    started = stored_version(out)
    if started is not None:
        reason = f"as {out} was started"
        reason += "; `vdsm verify --upgrade` makes format 3 of 2" if started < plan.version else ""
    elif recipe.shards.format == "auto":
        bound = "more than" if plan.version >= COLUMNAR else "at most"
        reason = (
            f"the plan has {plan.listed_clips:,} clips or inputs, {bound} {MOST_JSON_CLIPS:,} (shards.format: auto)"
        )
    else:
        reason = f"shards.format is {plan.version}"
    plan = plan.of_version(started or plan.version)
    chosen = f"dataset format {plan.version}: {reason}"
    if plan.version >= COLUMNAR and importlib.util.find_spec("pyarrow") is None:
        other = "" if started else "; or set shards.format: 2"
        raise UserError(f"{chosen}; {remedy('pyarrow')}{other}")
    return plan, chosen


class _Job:
    """A dataset being written: its plan, and the summaries of the shards that are complete so far."""

    def __init__(self, recipe: DataRecipe, out: str, source: Source, plan: Plan, progress: ProgressDisplay) -> None:
        self._recipe, self._out, self._source, self._plan, self._progress = recipe, out, source, plan, progress
        self._done: dict[str, ShardSummary] = {}
        # Sums, because adding up all shards after each of them takes time that grows with the square of their number.
        self._inputs = sum(len(shard.items) for shard in plan.shards)
        self._tried = self._empty = 0

    def acquire_output(self, *, store: bool) -> None:
        self._retry(lambda: acquire_output(self._out, self._plan, store=store))

    def run(self, chosen: str) -> None:
        """Write the missing shards, then complete the dataset.

        Args:
            chosen: a line on the dataset's format, shown with the first of them.
        """
        self._progress.start("looking for finished shards", len(self._plan.shards), unit="shards")
        self._retry(self._find_finished_shards)
        missing = [shard for shard in self._plan.shards if shard.path not in self._done]
        if not missing and self._is_complete():
            self._progress.expect(_PHASES - 3)
            log.info("all %d shards exist already", len(self._plan.shards))
            return
        if self._done:
            log.info("%d of %d shards exist already", len(self._done), len(self._plan.shards))
        if missing:
            self._progress.start("connecting to Ray")
            with ray_runtime.connect():
                log.info("%s", chosen)
                self._write(missing)
        else:
            self._progress.expect(_PHASES - 2)
        self._complete()

    def _retry(self, action: Callable[[], R]) -> R:
        """Return the result of a repeatable action, retried while storage does not respond."""
        return storage.retry_while_unreachable(action, self._recipe.shards.patience_seconds)

    def _find_finished_shards(self) -> None:
        self._progress.update(0)
        with ThreadPoolExecutor(CONCURRENT_READS) as pool:
            shards, identity = self._plan.shards, self._plan.identity
            found = pool.map(lambda shard: find_finished_shard(self._out, identity, shard), shards)
            for shard, summary in zip(shards, found, strict=True):
                if summary is not None:
                    self._add(shard, summary)
                self._progress.advance()

    def _add(self, shard: ShardPlan, summary: ShardSummary) -> None:
        """Keep the summary of a complete shard, and count its inputs."""
        if shard.path not in self._done:
            self._tried += len(shard.items)
            self._empty += sum(map(is_failed, summary.index["rejects"]))
        self._done[shard.path] = summary

    def _write(self, missing: list[ShardPlan]) -> None:
        """Write the missing shards; stop when too many inputs give no clip."""
        self._progress.start("writing shards", len(missing))
        self._check_rejected_share()
        throughput = Throughput()
        for written, (shard, summary) in enumerate(
            write_shards(self._out, self._plan, missing, self._recipe, self._source), start=1
        ):
            self._add(shard, summary)
            throughput.add(summary)
            self._progress.update(written, note=throughput.line())
            self._check_rejected_share()
        log.info("wrote %d shards: %s", len(missing), throughput.line())

    def _check_rejected_share(self) -> None:
        try:
            check_share(
                self._out,
                empty=self._empty,
                tried=self._tried,
                inputs=self._inputs,
                limit=self._recipe.shards.max_rejected_share,
            )
        except UserError:
            self._write_rejects()
            raise

    def _write_rejects(self) -> bytes:
        known = (self._done[shard.path] for shard in self._plan.shards if shard.path in self._done)
        return write_rejects(self._out, (record for one in known for record in one.index["rejects"]))

    def _complete(self) -> None:
        """Write everything that follows the last shard, the manifest last."""
        self._progress.start("writing the manifest and the preview")
        summaries = [self._done[shard.path] for shard in self._plan.shards]
        rejected = self._retry(self._write_rejects)
        check_any(self._out, summaries, self._plan.inputs())
        content = self._retry(lambda: make_manifest(self._out, self._plan, self._source, summaries, rejected))
        self._retry(lambda: write_preview(self._out, content, rejected))
        storage.remove_partial_files(self._out)
        # Formats before 3 have no table; one that was upgraded stays so.
        was_upgraded = self._plan.version < COLUMNAR and storage.exists(storage.join(self._out, TABLE))
        self._retry(lambda: write_manifest(self._out, content))
        if was_upgraded:
            self._retry(lambda: upgrade_dataset(self._out))

    def _is_complete(self) -> bool:
        """Return whether everything that follows the last shard exists, in full."""
        try:
            stored = self._stored_manifest()
            rejected = storage.read_bytes(storage.join(self._out, REJECTS))
            return (
                stored.get("plan_sha256") == self._plan.identity
                and stored["rejects"]["sha256"] == hashlib.sha256(rejected).hexdigest()
                and has_preview(self._out)
            )
        except (MissingFileError, schema.SchemaError, LookupError, TypeError):
            return False

    def _stored_manifest(self) -> ManifestHead:
        """Return the manifest, whose table of shards must be intact if it has one."""
        data = storage.read_bytes(storage.join(self._out, MANIFEST))
        head = schema.parse(data, ManifestHead)
        if head["schema_version"] < COLUMNAR:
            return schema.parse(data, Manifest)
        table = schema.parse(data, TableManifest)["table"]
        found = storage.read_bytes(storage.join(self._out, table["path"]))
        if hashlib.sha256(found).hexdigest() != table["sha256"]:
            raise schema.SchemaError("names another table of shards")
        return head

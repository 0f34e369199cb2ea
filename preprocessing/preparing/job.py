"""The job of `vdsm prepare`: list the videos, examine those that have no record yet, decide, write, report.

Each video's record is stored when it is examined, named by the video's version and the settings. A rerun therefore
examines only what is missing, and ends with the same bytes. The sidecar is written last.
"""

import importlib.util
import logging
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from cluster import ray_runtime
from cluster.cli.progress import ProgressDisplay
from cluster.errors import UserError, one_line
from cluster.extras import install
from cluster.storage import api as storage
from cluster.storage.lock import output_lock
from preprocessing.clip import Item
from preprocessing.dataset.format import REJECTS
from preprocessing.dataset.index import CONCURRENT_READS
from preprocessing.preparing.config import PrepareRecipe
from preprocessing.sources.catalogue import read_parts
from preprocessing.sources.labels import InputPart
from preprocessing.sources.names import as_text

log = logging.getLogger(__name__)

R = TypeVar("R")

SIDECAR, DECISIONS, PAGE = "sidecar.csv", "decisions.jsonl", "prepare.html"
"""Names of the files that are written."""
LIBRARIES = ("cv2", "scenedetect", "imagehash")
"""Modules of the extra `prepare`."""


def prepare_source(recipe: PrepareRecipe, out: str, *, dry_run: bool = False) -> None:
    """Examine the recipe's videos, write the sidecar for `vdsm shard` to `out`, and print what was decided.

    Args:
        recipe: the videos and the settings.
        out: folder or s3://bucket/prefix of the output.
        dry_run: print what would be examined, and write nothing.

    Raises:
        UserError: a library is missing, there are no videos, nothing in them is kept, `out` cannot be written, or
            another process writes there.
    """
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"vdsm prepare needs {', '.join(missing)}; {install('prepare')}")
    if recipe.source.name != "videos" or recipe.source.path is None:
        raise UserError(
            "vdsm prepare reads videos; pass --source.path with a folder of videos, a file, a pattern or a list"
        )
    with ProgressDisplay(phases=2 if dry_run else 4) as progress:
        progress.start("listing the videos")
        job = _Job(recipe, out, progress)
        if not dry_run:
            job.run()
    if dry_run:
        job.print_plan()
    else:
        job.print_report()


class _Job:
    def __init__(self, recipe: PrepareRecipe, out: str, progress: ProgressDisplay) -> None:
        from preprocessing.preparing.detectors import FaceFinder
        from preprocessing.preparing.scan import ScanSource
        from preprocessing.preparing.tasks import PARTS, record_path, segments_of, settings_of

        assert recipe.source.path is not None
        self._recipe, self._out, self._progress = recipe, out, progress
        FaceFinder(recipe.prepare.face_model)  # a wrong model fails now
        self._source = ScanSource(recipe.source.path, recipe.source.videos, recipe.prepare.analysis_size)
        self._items = self._source.inputs()
        if not self._items:
            raise UserError(f"{recipe.source.path}: no videos found; check --source.path")
        self._segments: dict[str, list[InputPart]] = {}
        self._records: dict[str, dict[str, Any]] = {}
        for item in self._items:
            try:
                self._segments[item.path] = read_parts(self._source.labels, item.path)
            except ValueError as error:
                self._segments[item.path] = []
                self._records[item.path] = {"damage": {"reason": str(error), "where": ""}}
        storage.exists(storage.join(out, SIDECAR))  # a wrong address or key fails now, not after retries
        settings = settings_of(recipe)
        self._paths = {
            item.path: record_path(item, segments_of(self._segments[item.path]), settings)
            for item in self._items
            if item.path not in self._records
        }
        parts = storage.join(out, PARTS)
        has_any = storage.is_remote(parts) or Path(parts).is_dir()
        self._stored = {f"{PARTS}/{name}" for name in storage.list_files(parts)} if has_any else set[str]()

    def _retry(self, action: Callable[[], R]) -> R:
        return storage.retry_while_unreachable(action, self._recipe.shards.patience_seconds)

    def run(self) -> None:
        """Examine the videos that have no record, and write the decisions."""
        self._retry(lambda: storage.check_writable(self._out))
        with output_lock(self._out):
            self._run()

    def _run(self) -> None:
        self._read_stored()
        missing = [item for item in self._items if item.path not in self._records]
        self._progress.start("examining videos", len(self._paths), unit="videos", done=len(self._paths) - len(missing))
        if missing:
            with ray_runtime.connect():
                self._examine(missing)
        self._progress.start("looking for near-duplicates")
        self._decide()

    def _read_stored(self) -> None:
        """Read the records of the videos that were examined before; one that is damaged is made again."""
        from preprocessing.preparing.record import parse_record

        found = [name for name, path in self._paths.items() if path in self._stored]
        with ThreadPoolExecutor(CONCURRENT_READS) as pool:
            contents = pool.map(
                lambda name: self._retry(lambda: storage.read_bytes(storage.join(self._out, self._paths[name]))), found
            )
            for name, data in zip(found, contents, strict=True):
                record = parse_record(data)
                if record is None:
                    log.warning("%s is damaged; examining %s again", self._paths[name], as_text(name))
                else:
                    self._records[name] = record
        if found:
            log.info("%d of %d videos were examined before", len(found), len(self._paths))

    def _examine(self, missing: list[Item]) -> None:
        from preprocessing.preparing.tasks import examine_videos, segments_of

        waiting = [(item, segments_of(self._segments[item.path]), self._paths[item.path]) for item in missing]
        done, seconds = len(self._paths) - len(missing), 0.0
        for item, record in examine_videos(self._out, waiting, self._recipe, self._source):
            self._records[item.path] = record
            done, seconds = done + 1, seconds + record["seconds"]
            self._progress.update(done, note=f"{seconds / 60:,.1f} minutes of video")

    def _decide(self) -> None:
        from preprocessing.preparing.decisions import Video, decide
        from preprocessing.preparing.page import make_page

        videos = [Video(item.path, self._records[item.path], self._segments[item.path]) for item in self._items]
        self.decisions = decide(videos, self._recipe.prepare.hash_distance)
        self._progress.start("writing the decisions")
        if not storage.is_remote(self._out):
            storage.remove_partial_files(self._out)
        for name, data in (
            (DECISIONS, self.decisions.lines()),
            (REJECTS, self.decisions.rejects()),
            (PAGE, make_page(self.decisions)),
            (SIDECAR, self.decisions.sidecar()),
        ):
            self._retry(lambda name=name, data=data: storage.write_bytes(storage.join(self._out, name), data))  # type: ignore[misc]

    def print_plan(self) -> None:
        """Print what would be examined."""
        stored = sum(path in self._stored for path in self._paths.values())
        refused = len(self._items) - len(self._paths)
        sys.stdout.write(f"videos: {len(self._items):,}, of which {stored:,} were examined before\n")
        if refused:
            sys.stdout.write(f"without labels: {refused:,}, which would be dropped\n")
        sys.stdout.write(f"dry run: nothing was written; without --dry-run, the sidecar goes to {self._out}\n")

    def print_report(self) -> None:
        """Print what was decided, and how to continue.

        Raises:
            UserError: nothing is kept.
        """
        decisions = self.decisions
        total = decisions.totals()
        sys.stdout.write(
            f"videos: {total.number:,}, used: {total.used:,}; parts: {total.parts:,}, kept: {total.kept:,}; "
            f"cuts: {total.cuts:,}\n"
        )
        for reason, count in decisions.reasons():
            sys.stdout.write(f"dropped: {count:,} {one_line(reason)}\n")  # a reason may be the user's, from a sidecar
        groups = decisions.several()
        if groups:
            sys.stdout.write(f"near-duplicates: {sum(map(len, groups)):,} videos in {len(groups):,} groups\n")
        for group in decisions.divided()[:3]:
            names = ", ".join(as_text(decisions.videos[index].name) for index in group[:3])
            log.warning(
                "near-duplicates have different identities by their labels, and may be in both splits: %s", names
            )
        sys.stdout.write(f"decisions: {storage.join(self._out, PAGE)}\n")
        if not total.kept:
            raise UserError(f"no part of {total.number:,} videos is kept; see {storage.join(self._out, PAGE)}")
        sidecar = storage.join(self._out, SIDECAR)
        sys.stdout.write(f"sidecar: {sidecar}; next: vdsm shard ... --source.videos.labels.sidecar {sidecar}\n")

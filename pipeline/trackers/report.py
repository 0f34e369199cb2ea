"""The report of a run as a file of its trackers."""

import logging
from pathlib import Path
from typing import Any

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.scratch import scratch_folder
from pipeline.recipe import Recipe
from pipeline.trackers.feed import Feed
from pipeline.trackers.registry import FOLDER, fetch_files, open_feeds, tracked_run
from pipeline.trackers.rows import records_of, stored_rows
from pipeline.trackers.tracker import NETWORKED

FILES = ("report.html", "metrics.json")
PATIENCE_S = 120.0
"""Seconds after which the files are given up."""

logger = logging.getLogger(__name__)


def add_report(run: str, recipe: Recipe, out: str, *, is_finished: bool) -> None:
    """Add the report and the metrics in `out` to the trackers of a run, and what they still lack of its curves.

    What prevents it is logged as a warning: the files themselves are written by then. TensorBoard shows no files.

    Args:
        run: the run, as an absolute path or URL.
        recipe: its recipe, which names the trackers.
        out: path or URL of the folder of the report.
        is_finished: whether the run is trained to its end; trackers of others belong to the training.
    """
    names = [name for name in recipe.training.trackers if name in NETWORKED]
    if not names:
        return
    if not is_finished:
        logger.warning("the report is not added to %s before the run is finished", ", ".join(names))
        return
    settings = recipe.model_dump(mode="json")
    try:
        with scratch_folder() as scratch:
            folder = scratch / "run" if storage.is_remote(run) else Path(run)
            if storage.is_remote(run):
                fetch_files(run, folder)
                storage.download(storage.join(run, "metrics.jsonl"), folder / "metrics.jsonl")
            for name in FILES:
                storage.download(storage.join(out, name), scratch / name)
            items: list[Any] = [*stored_rows(folder, records_of(folder / "metrics.jsonl"))]
            items += [scratch / name for name in FILES]
            _send(open_feeds(names, tracked_run(run, folder, settings)), items)
            if storage.is_remote(run):
                for path in (folder / FOLDER).rglob("*"):
                    if path.is_file() and not path.is_symlink():
                        storage.upload(path, storage.join(run, path.relative_to(folder).as_posix()))
    except (UserError, OSError) as error:
        logger.warning("the report is not added to %s: %s", ", ".join(names), error)


def _send(feeds: list[Feed], items: list[Any]) -> None:
    for feed in feeds:
        feed.put(items)
    for feed in feeds:
        feed.close(PATIENCE_S)

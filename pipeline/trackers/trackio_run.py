"""Trackio: its database on this machine (`TRACKIO_DIR`, or its own folder), or a Space (`TRACKIO_SPACE_ID`)."""

import contextlib
import io
import os
from pathlib import Path
from typing import Any

from cluster.errors import UserError, first_line
from pipeline.trackers.tracker import PROJECT, Row, TrackedRun


class TrackioRun:
    """A run of Trackio, found by its name, which ends with the id of the run.

    Raises:
        UserError: it cannot be opened.
    """

    def __init__(self, run: TrackedRun) -> None:
        import trackio

        self._image, self._video = trackio.Image, trackio.Video
        project, name = os.environ.get("TRACKIO_PROJECT", PROJECT), f"{run.name}-{run.id[:6]}"
        try:
            with _quiet():
                self._run = trackio.init(project, name=name, resume="allow", config=dict(run.settings), embed=False)
        except Exception as error:  # of several kinds, without a common one
            raise UserError(
                f"trackio: {first_line(error):.200}; check TRACKIO_DIR or TRACKIO_SPACE_ID, or leave trackio out of "
                "training.trackers"
            ) from None
        self._newest = int(self._run._next_step) - 1

    def newest(self, series: str) -> int:
        """Return the newest step. A row has all series."""
        return self._newest

    def add(self, row: Row) -> None:
        """Send a row."""
        self._run.log(row.values(self._image, self._video), step=row.step)
        self._newest = row.step

    def file(self, path: Path) -> None:
        """Keep a file as a version of an artefact."""
        with _quiet():
            self._run.log_artifact(str(path), name=f"{path.stem}-{self._run.name}", type="evaluation")

    def close(self) -> None:
        """Send what is buffered."""
        with _quiet():
            self._run.finish()


def _quiet() -> contextlib.AbstractContextManager[Any]:
    """Keep what Trackio prints from the output of the command."""
    return contextlib.redirect_stdout(io.StringIO())

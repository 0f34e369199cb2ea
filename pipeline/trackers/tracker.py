"""The interface of an experiment tracker, and what is sent to it.

A run has one id for all its trackers, kept in its folder, so that a resumed training continues the curves of the run.
Each step is shown once: after a kill the steps since the last checkpoint are repeated with the same values, and what
a tracker holds already is not sent to it again; what it lost is sent again from metrics.jsonl.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pipeline.training.config import TrackerName

MEDIA = "media"
"""The series of sample images and animations."""
PROJECT = "vdsm"
"""Project or experiment of the runs, unless the environment names another."""


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """A run, as its trackers know it."""

    id: str
    """The same after each resumption, and of no other run."""
    name: str
    """What people call it; several runs may share it."""
    folder: Path
    """Local folder for the files of trackers that are given no server and no other folder."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The recipe, as nested dicts. It holds no credentials."""


class Row(NamedTuple):
    """All that is known of one step."""

    step: int
    """Steps done in both stages."""
    scalars: Mapping[str, float]
    """Values by tag, such as `loss/reconstruction` or `validation/elbo`."""
    media: Mapping[str, Path]
    """Local .png and .gif files by tag, such as `stage 1/action transfer`."""

    def after(self, newest: Mapping[str, int]) -> "Row":
        """Return what a tracker lacks of this row; `newest` has its newest step of each series, a tag or `MEDIA`."""
        scalars = {tag: value for tag, value in self.scalars.items() if self.step > newest.get(tag, -1)}
        return self._replace(scalars=scalars, media=self.media if self.step > newest.get(MEDIA, -1) else {})

    def values(self, image: Callable[..., Any], video: Callable[..., Any]) -> dict[str, Any]:
        """Return all values by tag, media as what the classes of a library make of a .png and of a .gif."""
        media = {
            tag: video(str(path), format="gif") if path.suffix == ".gif" else image(str(path))
            for tag, path in self.media.items()
        }
        return {**self.scalars, **media}

    def __bool__(self) -> bool:
        return bool(self.scalars or self.media)


class Tracker(Protocol):
    """One tracker that is open for one run. Methods raise whatever its library does; `Feed` deals with it."""

    def newest(self, series: str) -> int:
        """Return the newest step that it holds of a series: a tag, or `MEDIA`; -1 if it holds none."""

    def add(self, row: Row) -> None:
        """Send a row, later than those before it."""

    def file(self, path: Path) -> None:
        """Keep a file with the run, in place of an earlier one of the same name."""

    def close(self) -> None:
        """Send what is buffered."""


NETWORKED: tuple[TrackerName, ...] = ("wandb", "mlflow", "trackio")
"""Trackers that `Feed` feeds. TensorBoard's files belong to the run, and are written by its log."""

"""Clips that the pages can show and choose by key: those of a dataset, and built-in figures that no model was shown."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cluster.errors import UserError
from pipeline.report.images import Frames
from pipeline.web_studio.examples import Examples, of_dataset, of_figures
from pipeline.web_studio.settings import ModelFacts
from preprocessing.clip import Item
from preprocessing.dataset.reader import ClipDataset
from preprocessing.sources import figures
from preprocessing.sources.config import FiguresConfig

FIGURES = "figures"
NUM_FIGURES = 12
"""Built-in figures that are offered; each performs every action."""


class ClipCollection(Protocol):
    """Clips with labels."""

    @property
    def keys(self) -> Sequence[str]:
        """Unique key of each clip."""

    @property
    def identities(self) -> Sequence[str]:
        """Identity of each clip."""

    @property
    def labels(self) -> dict[str, NDArray[np.int64]]:
        """Per label, [N] indices into its vocabulary."""

    @property
    def fps(self) -> NDArray[np.float64]:
        """Frames per second of each clip, [N]."""

    vocabulary: dict[str, list[str]]

    def frames(self, index: int) -> Frames:
        """Return the frames of one clip: uint8 [T, H, W, C]."""


class FigureClips:
    """Figures of the built-in generator, drawn when they are needed."""

    def __init__(self, clip_frames: int) -> None:
        config = FiguresConfig(clip_frames=clip_frames)
        self._source = figures.FiguresSource(config, seed=0)
        items = [item for item in self._source.items() if item.split == "test"][:NUM_FIGURES]
        actions = figures.VOCABULARY["action"]
        self._items = [item for item in items for _ in actions]
        self.vocabulary = figures.VOCABULARY
        self.keys = [f"{item.key}-{action}" for item in items for action in actions]
        self.identities = [item.key for item in self._items]
        attributes = [vars(self._source.figure(item.key)) for item in self._items]
        self.labels = {name: np.array([one[name] for one in attributes]) for name in attributes[0]}
        self.labels["action"] = np.tile(np.arange(len(actions)), len(items))
        self.fps = np.full(len(self.keys), figures.FRAMES_PER_SECOND)

    def frames(self, index: int) -> Frames:
        """Return the frames of one clip: uint8 [T, 64, 64, 3]."""
        return self._drawn(self._items[index])[self.keys[index]]

    @functools.lru_cache(maxsize=NUM_FIGURES)  # noqa: B019 (it lives as long as its process)
    def _drawn(self, item: Item) -> dict[str, Frames]:
        return {clip.key: clip.frames for clip in self._source.clips(item)}


class ClipShelf:
    """All collections by the kind of reference that names their clips."""

    def __init__(self, facts: ModelFacts, data: str | None) -> None:
        self.collections: dict[str, ClipCollection] = {}
        self.datasets: dict[str, ClipDataset] = {}
        if data is not None:
            self.datasets = {split: ClipDataset(data, split) for split in ("test", "train")}
            self.collections.update(self.datasets)
            _check_fit(self.datasets["test"], facts)
        if (facts.frame_size, facts.channels) == (FiguresConfig().size, 3):
            self.collections[FIGURES] = FigureClips(facts.clip_frames)
        self._rows = {
            kind: {key: row for row, key in enumerate(clips.keys)} for kind, clips in self.collections.items()
        }
        self._clip_frames = facts.clip_frames

    def collection(self, kind: str) -> ClipCollection:
        """Return a collection.

        Raises:
            UserError: there is none of this name.
        """
        if kind not in self.collections:
            known = ", ".join(self.collections) or "none; start vdsm studio with --data"
            raise UserError(f"there are no clips named {kind:.40}: (known: {known})")
        return self.collections[kind]

    def frames(self, kind: str, key: str) -> Frames:
        """Return the first frames of a clip, as many as the model uses.

        Raises:
            UserError: there is no such clip, or it is too short.
        """
        clips = self.collection(kind)
        if key not in self._rows[kind]:
            raise UserError(f"{kind}:{key:.80}: there is no clip with this key")
        frames = clips.frames(self._rows[kind][key])
        if len(frames) < self._clip_frames:
            raise UserError(f"{kind}:{key}: has {len(frames)} frames, but the model needs {self._clip_frames}")
        return frames[: self._clip_frames]

    def examples(self) -> Examples | None:
        """Return labelled clips from which the factors of identities can be found, if there are any."""
        if self.datasets:
            return of_dataset(self.datasets["train"], self._clip_frames)
        return of_figures(self._clip_frames) if FIGURES in self.collections else None

    def matching(self, kind: str, filters: Mapping[str, Sequence[str]]) -> list[int]:
        """Return the clips that have one of the given values for each of the given labels.

        Raises:
            UserError: there is no such label or value.
        """
        clips = self.collection(kind)
        kept = np.ones(len(clips.keys), dtype=bool)
        for name, values in filters.items():
            if name == "identity":
                kept &= np.isin(clips.identities, list(values))
                continue
            names = clips.vocabulary.get(name)
            if names is None or not set(values) <= set(names):
                raise UserError(f"{name}:{','.join(values):.80}: there is no such label; the labels are in /api/model")
            kept &= np.isin(clips.labels[name], [names.index(value) for value in values])
        return [int(row) for row in np.flatnonzero(kept)]


def described(clips: ClipCollection, kind: str, row: int) -> dict[str, Any]:
    """Return reference, identity and labels of a clip."""
    labels = {name: clips.vocabulary[name][values[row]] for name, values in clips.labels.items()}
    return {"of": f"{kind}:{clips.keys[row]}", "key": clips.keys[row], "identity": clips.identities[row],
            "labels": labels}  # fmt: skip


def _check_fit(clips: ClipDataset, facts: ModelFacts) -> None:
    expected = (facts.frame_size, facts.frame_size, facts.channels)
    if clips.frame_shape != expected:
        shapes = ["x".join(map(str, shape)) for shape in (clips.frame_shape, expected)]
        raise UserError(f"{clips.url} has frames of {shapes[0]}, but {facts.name} expects {shapes[1]}; name its data")

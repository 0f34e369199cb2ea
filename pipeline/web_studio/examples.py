"""Labelled clips from whose codes the factors of identities are found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.report.images import Frames
from pipeline.web_studio.factors import Factor, labelled_factors
from pipeline.web_studio.rendering import Encoded
from preprocessing.dataset.reader import ClipDataset
from preprocessing.sources import figures
from preprocessing.sources.config import FiguresConfig

MOST_CLIPS = 240
"""Clips of a dataset whose codes are taken: the first, which are a random sample."""
NUM_FIGURES = 60
"""Built-in figures whose codes are taken, each with one action."""


@dataclass(frozen=True)
class Examples:
    """Labelled clips."""

    clips: list[Frames]
    labels: dict[str, NDArray[np.int64]]
    vocabulary: Mapping[str, Sequence[str]]
    own: bool
    """Whether they are of the data that was named with the model; others count only if the model knows their kind."""

    def factors(self, encoded: Encoded) -> list[Factor]:
        """Return the factors of the labels, or none if most of the clips are unlike the model's data."""
        if not self.own and encoded.unlike.mean() > 0.5:
            return []
        return labelled_factors(encoded.static, self.labels, self.vocabulary)


def of_dataset(clips: ClipDataset, clip_frames: int) -> Examples | None:
    """Return the first clips of a split that are long enough; None if they have no labels."""
    rows = [row for row in range(min(len(clips), MOST_CLIPS)) if clips.clip_frames[row] >= clip_frames]
    if not clips.labels or not rows:
        return None
    labels = {name: values[rows] for name, values in clips.labels.items()}
    return Examples([clips.frames(row)[:clip_frames] for row in rows], labels, clips.vocabulary, own=True)


def of_figures(clip_frames: int) -> Examples:
    """Return clips of built-in figures, which a model of this frame size may know or not."""
    source = figures.FiguresSource(FiguresConfig(clip_frames=clip_frames), seed=0)
    keys = [item.key for item in source.items() if item.split == "train"][:NUM_FIGURES]
    names = figures.VOCABULARY["action"]
    actions = np.arange(len(keys)) % len(names)
    clips = [source.true_swap(f"{key}-{names[action]}", key) for key, action in zip(keys, actions)]
    attributes = [vars(source.figure(key)) for key in keys]
    labels = {name: np.array([one[name] for one in attributes]) for name in attributes[0]}
    return Examples(clips, {"action": actions, **labels}, figures.VOCABULARY, own=False)

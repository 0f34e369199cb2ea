"""What `vdsm.load`, `vdsm.data` and the methods of a model look up here by name: runs, datasets, files and URLs.

The functions raise ValueError, as `vdsm` does, with the line of the UserError that was its cause. None needs Ray.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cluster.errors import UserError

if TYPE_CHECKING:
    from preprocessing.dataset.reader import ClipDataset
    from vdsm.disentangler import Disentangler
    from vdsm.model_folder import ModelFacts


@contextlib.contextmanager
def _as_value_errors() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise ValueError(str(error)) from error


def open_model(source: str) -> "tuple[Disentangler, ModelFacts]":
    """Return a model and its facts, as `pipeline.models.find.open_model` does."""
    from pipeline.models.find import open_model as found

    with _as_value_errors():
        return found(source)


def open_dataset(url: str, split: str) -> "ClipDataset":
    """Return a split of a dataset."""
    from cluster.cli.paths import expand_home
    from preprocessing.dataset.reader import ClipDataset

    with _as_value_errors():
        return ClipDataset(expand_home(url), split)


def read_clips(
    names: Sequence[str], *, size: int, channels: int, clip_frames: int, fps: float | None, stills: bool
) -> NDArray[np.uint8]:
    """Return the clips in files, fitted to a model as `vdsm generate` does: uint8 [B, clip_frames, size, size, C].

    Args:
        names: the files; see `pipeline.generation.user_clips.read_clips`.
        size: height and width of the model's frames.
        channels: their number of channels.
        clip_frames: frames of each clip.
        fps: frames per second at which videos are read; None reads every frame.
        stills: whether still pictures are accepted.
    """
    from cluster.cli.paths import expand_home
    from pipeline.generation import user_clips

    with _as_value_errors():
        clips = user_clips.concatenate(
            [
                user_clips.read_clips(
                    expand_home(name),
                    size=size,
                    channels=channels,
                    min_frames=clip_frames,
                    fps=fps,
                    still_frames=clip_frames if stills else None,
                )
                for name in names
            ]
        )
    return np.stack([clips.frames(index)[:clip_frames] for index in range(len(clips))])

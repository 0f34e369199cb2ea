"""Datasets of `vdsm shard` as `torch.utils.data.Dataset`s."""

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from vdsm.companions import reader
from vdsm.evaluation.clips import LabelledClips


class ClipTensors(Dataset[dict[str, Any]]):
    """The clips of one split. Works with `torch.utils.data.DataLoader`, also with workers.

    An element is a dict that the default `collate_fn` can batch:

    - `frames`: uint8 [T, H, W, C]; `vdsm.pixels.to_float` makes the network's input of a batch
    - `labels`: name -> index into `clips.vocabulary`
    - `identity`, `key`: names of who is shown, and of the clip
    """

    clips: LabelledClips
    """The split itself, a `preprocessing.dataset.reader.ClipDataset`: labels of all clips, vocabulary, manifest."""

    def __init__(self, clips: LabelledClips, frames: int | None = None) -> None:
        """Wrap a split.

        Args:
            clips: the split.
            frames: length of the elements, the first frames of each clip; None means complete clips.

        Raises:
            ValueError: a clip has fewer frames.
        """
        self.clips, self._frames = clips, frames
        shortest = min(map(int, clips.clip_frames), default=frames or 0)
        if frames is not None and not 1 <= frames <= shortest:
            raise ValueError(f"frames is {frames}; it must be from 1 to {shortest}, the length of the shortest clip")

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        return {
            "frames": torch.from_numpy(self.clips.frames(index))[: self._frames],
            "labels": {name: int(values[index]) for name, values in self.clips.labels.items()},
            "identity": self.clips.identities[index],
            "key": self.clips.keys[index],
        }


def load(url: str | Path, split: str = "train", *, frames: int | None = None) -> ClipTensors:
    """Return one split of the dataset at a folder or s3://bucket/prefix.

    Args:
        url: what `vdsm shard` wrote.
        split: `train` or `test`.
        frames: as in `ClipTensors`.

    Raises:
        ValueError: there is no such dataset or split, or it is damaged; the message is one line.
    """
    return ClipTensors(reader(str(url)).open_dataset(str(url), split), frames)

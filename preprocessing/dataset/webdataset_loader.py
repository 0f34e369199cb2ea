"""A split as a `webdataset` pipeline: shards are read from start to end, for any training code that takes a stream.

    clips = webdataset(ClipDataset("DATA", "train"), shuffle=1000).batched(32)
    loader = torch.utils.data.DataLoader(clips, batch_size=None, num_workers=4)

`ClipDataset` reads clips in any order; this reads them as they are stored, which suits storage that is slow to seek,
and code that is written for WebDataset. Every clip is compared with its checksum, and nothing is unpickled.
"""

import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import webdataset as wds

from preprocessing.dataset.errors import damaged_file
from preprocessing.dataset.format import FRAMES_SUFFIX
from preprocessing.dataset.reader import ClipDataset

Sample = dict[str, Any]


class ClipStream(wds.DataPipeline, wds.FluidInterface):  # type: ignore[misc] # untyped
    """An iterable dataset of torch, to which `.map`, `.batched` and the other stages of webdataset can be appended."""


def webdataset(clips: ClipDataset, *, shuffle: int = 0, seed: int = 0) -> ClipStream:
    """Return the clips of a split as a stream of samples.

    Each sample is a dict: `__key__`; `frames`, uint8 [T, H, W, C]; `labels`, name -> index into `clips.vocabulary`;
    `identity`, `source`, `start_s` and `fps`. The shards are divided among the nodes of torch.distributed and among the
    workers of a `DataLoader`.

    Args:
        clips: the split, in a folder or in S3; shards from S3 are kept in the cache of `ClipDataset`.
        shuffle: size of the buffer in which samples are shuffled; the order of the shards is shuffled, too. Another
            order in each epoch; 0 keeps the order of the manifest.
        seed: seed of both shuffles.

    Raises:
        DamagedDatasetError: while it is read: a shard is missing, cut short or changed.
    """
    count = len(clips.shards)
    stages: list[Any] = [_Shards(count)]
    stages += [wds.detshuffle(bufsize=count, initial=count, seed=seed)] if shuffle else []
    stages += [wds.split_by_node, wds.split_by_worker, _Samples(clips)]
    stages += [wds.detshuffle(bufsize=shuffle, initial=shuffle, seed=seed)] if shuffle else []
    return ClipStream(*stages)


@dataclass(frozen=True)
class _Shards:
    """Yields the numbers of all shards."""

    count: int

    def __call__(self) -> Iterator[int]:
        return iter(range(self.count))


class _Samples:
    """Yields the samples in each shard."""

    def __init__(self, clips: ClipDataset) -> None:
        self._clips = clips
        self._index = {key: index for index, key in enumerate(clips.keys)}

    def __call__(self, shards: Iterable[int]) -> Iterator[Sample]:
        for number in shards:
            path = self._clips.shards[number]["path"]
            with self._clips.open_shard(number) as file:
                try:
                    for member in wds.tariterators.tar_file_iterator(file):
                        key = member["fname"].removesuffix(FRAMES_SUFFIX)
                        if key != member["fname"] and key in self._index:
                            yield self._sample(self._index[key], member["data"])
                except tarfile.TarError as error:
                    raise damaged_file(self._clips.url, path, f"it is no intact tar: {error}") from None

    def _sample(self, index: int, member: bytes) -> Sample:
        clips = self._clips
        labels = {name: int(column[index]) for name, column in clips.labels.items()}
        factors = {name: float(column[index]) for name, column in clips.factors.items()}
        return {
            "__key__": clips.keys[index],
            "frames": clips.decode(index, member),
            "labels": labels | factors | clips.tracks(index),
            "identity": clips.identities[index],
            "source": clips.sources[index],
            "start_s": float(clips.starts_s[index]),
            "fps": float(clips.fps[index]),
        }

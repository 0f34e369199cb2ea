"""Video files: anything that PyAV decodes, from a folder, a file, a pattern or a list, on disk or in S3."""

import logging
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import PurePosixPath
from typing import BinaryIO

from cluster.errors import UserError
from preprocessing.clip import Clip, Item
from preprocessing.decoding.input_file import open_input
from preprocessing.decoding.timing import assign_times, resample
from preprocessing.decoding.video import VideoReader
from preprocessing.sources.catalogue import Catalogue, make_catalogue, segments_of
from preprocessing.sources.clipping import Clipper, make_transform
from preprocessing.sources.config import HuggingFaceConfig, VideosConfig
from preprocessing.sources.doubts import NOT_VIDEOS, find_doubts
from preprocessing.sources.file_source import FileSource
from preprocessing.sources.listing import Entry, resolve

log = logging.getLogger(__name__)

BYTES_PER_FRAME = 4096
"""Estimated size of an encoded frame, in bytes; within a factor of ten, since files are listed but not opened."""


def clips_of_video(item: Item, file: BinaryIO, config: VideosConfig | HuggingFaceConfig) -> Iterator[Clip]:
    """Yield the windows of an open video while its frames are decoded.

    Raises:
        RejectedInputError: it is damaged or gives no clip; the clips before the damage come first.
    """
    segments, crops = segments_of(item)
    with VideoReader(file, max_pixels=config.max_pixels) as video:
        rate = video.rate
        frames = assign_times(video.frames(make_transform(config, crops)), rate)
        if config.fps is not None:
            rate = Fraction(config.fps).limit_denominator(1000)
            frames = resample(frames, rate)
        clipper = Clipper(item, segments, config, rate)
        for frame in frames:
            yield from clipper.add(frame)
        if video.damage is not None:
            raise video.damage
        clipper.check()


class VideosSource(FileSource[VideosConfig]):
    """Windows of consecutive frames of every video."""

    untrusted = True

    def clips(self, item: Item) -> Iterator[Clip]:
        """Yield the windows of one video while its frames are decoded."""
        with open_input(item.local or resolve(self._base, item.path)) as file:
            yield from clips_of_video(item, file, self._config)

    def _list_inputs(self) -> Catalogue:
        listed = list(self._list_videos())
        catalogue = make_catalogue(
            listed,
            self._labels,
            seed=self._seed,
            test_fraction=self._config.test_fraction,
            estimate_bytes=lambda entry: self._estimate_bytes(entry.size / BYTES_PER_FRAME),
            doubts=find_doubts(listed, self._inputs.base),
        )
        if not catalogue.items:
            raise UserError(f"{self._path}: no videos found; check --source.path")
        return catalogue

    def _list_videos(self) -> Iterator[Entry]:
        skipped: Counter[str] = Counter()
        for entry in self._inputs.entries():
            suffix = PurePosixPath(entry.name).suffix.lower()
            if suffix in NOT_VIDEOS and not self._inputs.explicit:
                skipped[suffix] += 1
            else:
                yield entry
        if skipped:
            kinds = ", ".join(f"{suffix} {count}" for suffix, count in sorted(skipped.items()))
            log.info("skipped %d files that are not videos by their suffix: %s", skipped.total(), kinds)

"""Video files: anything that PyAV decodes, from a folder, a file, a pattern or a list, on disk or in S3."""

import functools
import logging
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import PurePosixPath

from cluster.errors import UserError
from preprocessing.clip import Clip, Item
from preprocessing.decoding.transform import FrameTransform
from preprocessing.sources.catalogue import Catalogue, make_catalogue, segments_of
from preprocessing.sources.catalogued import CataloguedSource
from preprocessing.sources.clipping import Clipper
from preprocessing.sources.config import VideosConfig
from preprocessing.sources.listing import Entry, InputListing, address, find_inputs, open_input

log = logging.getLogger(__name__)

NO_VIDEOS = frozenset(
    [
        ".txt",
        ".csv",
        ".tsv",
        ".json",
        ".jsonl",
        ".xml",
        ".yaml",
        ".yml",
        ".toml",
        ".ini",
        ".md",
        ".rst",
        ".html",
        ".pdf",
        ".log",
        ".nfo",
        ".srt",
        ".vtt",
        ".ass",
        ".sha256",
        ".md5",
        ".jpg",
        ".jpeg",
        ".png",
        ".bmp",
        ".tif",
        ".tiff",
        ".npy",
        ".npz",
        ".pt",
        ".pkl",
        ".db",
        ".zip",
        ".tar",
        ".gz",
        ".xz",
        ".py",
        ".sh",
        ".ipynb",
    ]
)
"""What lies beside videos and is none, by its suffix: left out of folders, unless the user names it."""
BYTES_PER_FRAME = 4096
"""Of a video file: a guess, right within a factor of ten, since files are listed and not opened."""


class VideosSource(CataloguedSource[VideosConfig]):
    """Windows of consecutive frames from every video."""

    untrusted = True

    def clips(self, item: Item) -> Iterator[Clip]:
        """The windows of one video, as its frames are decoded."""
        from preprocessing.decoding.timing import in_time, resample
        from preprocessing.decoding.video import VideoReader

        config = self._config
        segments, crop = segments_of(item)
        transform = FrameTransform(config.size, config.channels, config.fit, crop)
        url = address(self._inputs.base, item.path)
        with open_input(url) as file, VideoReader(file, max_pixels=config.max_pixels) as video:
            rate = video.rate
            frames = in_time(video.frames(transform), rate)
            if config.fps is not None:
                rate = Fraction(config.fps).limit_denominator(1000)
                frames = resample(frames, rate)
            clipper = Clipper(item, segments, config, rate)
            for frame in frames:
                yield from clipper.add(frame)
            if video.damage is not None:
                raise video.damage
            clipper.check()

    @functools.cached_property
    def _inputs(self) -> InputListing:
        return find_inputs(self._path)

    def _listed(self) -> Catalogue:
        config = self._config
        frame_bytes = config.size**2 * config.channels
        overlap = config.clip_frames / (config.stride or config.clip_frames)

        def estimate(entry: Entry) -> int:
            return round(entry.size / BYTES_PER_FRAME * frame_bytes * overlap)

        catalogue = make_catalogue(
            self._videos(), self._labels, seed=self._seed, test_fraction=config.test_fraction, estimate=estimate
        )
        if not catalogue.items:
            raise UserError(f"{self._path}: there is no video; check --source.path")
        return catalogue

    def _videos(self) -> Iterator[Entry]:
        left_out: Counter[str] = Counter()
        for entry in self._inputs.entries():
            suffix = PurePosixPath(entry.name).suffix.lower()
            if suffix in NO_VIDEOS and not self._inputs.chosen:
                left_out[suffix] += 1
            else:
                yield entry
        if left_out:
            kinds = ", ".join(f"{suffix} {count}" for suffix, count in sorted(left_out.items()))
            log.info("left out %d files that are no videos by their names: %s", left_out.total(), kinds)

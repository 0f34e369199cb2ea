"""Read a video in the sandbox as small upright frames with their times, instead of clips for training."""

import json
import os
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from preprocessing.clip import Clip, Factors, Item
from preprocessing.decoding.input_file import open_input
from preprocessing.decoding.timing import DecodedFrame, Frame, assign_times
from preprocessing.decoding.transform import Crop, upright
from preprocessing.decoding.video import VideoReader
from preprocessing.sources.config import VideosConfig
from preprocessing.sources.labels import LabelReader
from preprocessing.sources.listing import resolve
from preprocessing.sources.names import make_key
from preprocessing.sources.videos import VideosSource

CHUNK = 16
"""Frames that the sandbox sends at once."""


class SmallFrame:
    """Turns images upright and makes them smaller, with square pixels.

    Args:
        long_side: longer side of the result, in pixels; smaller images are not enlarged.
    """

    crop: Crop | None = None

    def __init__(self, long_side: int) -> None:
        self._long_side = long_side
        self.size = max(1, long_side // 2)
        self.turned = False
        """Whether the last image was turned by a quarter, so that its width became its height."""

    def __call__(
        self, image: Image.Image, *, rotation: int = 0, aspect: float = 1.0, time_s: float = 0.0
    ) -> NDArray[np.uint8]:
        """Return the frame, uint8 [H, W, 3], the same at any time."""
        image, aspect, self.turned = upright(image, rotation, aspect)
        width, height = image.width * aspect, float(image.height)
        scale = min(1.0, self._long_side / max(width, height))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        resized = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        return np.asarray(resized.convert("RGB"))


class ScanSource(VideosSource):
    """The same videos as `vdsm shard` reads; its clips are chunks of small frames, for examination.

    Args:
        path: the setting `source.path`.
        config: which files are listed, and their labels.
        long_side: longer side of the frames, in pixels.
    """

    def __init__(self, path: str, config: VideosConfig, long_side: int) -> None:
        super().__init__(path, config, seed=0)
        self._long_side = long_side

    vocabulary: dict[str, list[str]] = {}  # noqa: RUF012 - it never changes
    factors: Factors = {"time": "frame", "run": "frame", "width": "clip", "height": "clip", "bytes": "clip"}  # noqa: RUF012

    def inputs(self) -> list[Item]:
        """Return all videos, in the order of their paths."""
        entries = sorted(self._list_videos(), key=lambda entry: entry.name)
        return [Item(make_key(entry.name), "train", 1, path=entry.name, version=entry.version) for entry in entries]

    @property
    def labels(self) -> LabelReader:
        """The labels of the inputs."""
        return self._labels

    def serialized(self) -> str:
        """Return as JSON what `open_scan` needs."""
        content = {"path": self._path, "config": self._config.model_dump(mode="json"), "long_side": self._long_side}
        return json.dumps(content)

    def clips(self, item: Item) -> Iterator[Clip]:
        """Yield all frames of a video in chunks. The labels are times in seconds, runs, and the size of the video."""
        url = item.local or resolve(self._base, item.path)
        transform = SmallFrame(self._long_side)
        with open_input(url) as file, VideoReader(file, max_pixels=self._config.max_pixels) as video:
            scenes: deque[tuple[int, int]] = deque()
            chunk: list[Frame] = []
            size = (0, 0)
            number, length = 0, os.fstat(file.fileno()).st_size
            for frame in assign_times(self._watched(video, transform, scenes), video.rate):
                scene = scenes.popleft()
                if chunk and (len(chunk) == CHUNK or scene != size or frame.run != chunk[0].run):
                    yield _chunk(item, number, chunk, size, length)
                    number, chunk = number + 1, []
                chunk.append(frame)
                size = scene
            if chunk:
                yield _chunk(item, number, chunk, size, length)
            if video.damage is not None:
                raise video.damage

    def _watched(
        self, video: VideoReader, transform: SmallFrame, scenes: deque[tuple[int, int]]
    ) -> Iterator[DecodedFrame]:
        """Yield the frames of a video, and note the size of each, upright, in pixels of the video."""
        for frame in video.frames(transform):
            width, height = frame.scene
            scenes.append((height, width) if transform.turned else (width, height))
            yield frame


def _chunk(item: Item, number: int, frames: list[Frame], size: tuple[int, int], length: int) -> Clip:
    labels: dict[str, Any] = {
        "time": [float(frame.time) for frame in frames],
        "run": [float(frame.run) for frame in frames],
        "width": float(size[0]),
        "height": float(size[1]),
        "bytes": float(length),
    }
    return Clip(
        key=f"{item.key}-{number:06d}",
        frames=np.stack([frame.pixels for frame in frames]),
        labels=labels,
        identity=item.key,
        source=item.key,
        start_s=labels["time"][0],
        fps=25.0,
    )


def open_scan(serialized: str) -> ScanSource:
    """Return the source that `ScanSource.serialized` described, in another process."""
    content = json.loads(serialized)
    return ScanSource(content["path"], VideosConfig.model_validate(content["config"]), content["long_side"])

"""NumPy files: one video per file, or many videos with their labels in one file, the format of MUG-FED.

A .npy file is one video [T, H, W, C] (or [T, H, W]), or several [N, T, H, W, C]. A .npz file holds the same as `images`
(or as its only array); videos of different lengths are concatenated, with an array `lengths` [N]. An array `labels`
[N, K] has one row per video; `label_names` names its columns. Values are uint8, or floats from 0 to 1.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import UnreachableError
from preprocessing.clip import Clip, Item, RejectedInputError, TransientError
from preprocessing.decoding.timing import Frame
from preprocessing.sources.array_file import ArrayFile, DamagedArrayError
from preprocessing.sources.catalogue import Catalogue, make_catalogue, segments_of
from preprocessing.sources.clipping import Clipper, make_transform
from preprocessing.sources.config import ArraysConfig
from preprocessing.sources.file_source import FileSource
from preprocessing.sources.labels import read_labels
from preprocessing.sources.listing import Entry, resolve
from preprocessing.sources.names import as_text

IMAGES, LABELS, LENGTHS = "images", "labels", "lengths"
FEW_VIDEOS, BYTES_PER_VIDEO = 100_000, 256
"""A file may have more than so many videos only if it has so many bytes for each: all of them are listed first."""


class ArraysSource(FileSource[ArraysConfig]):
    """Windows of consecutive frames of every video in every file."""

    untrusted = True

    def fetch(self, item: Item, folder: Path) -> Item:
        """Return an input in S3 with the path of a copy of its file, which is made once for all of its videos."""
        url = self._url(item)
        if not storage.is_remote(url):
            return item
        try:
            return dataclasses.replace(item, local=str(self._open(url).path))
        except DamagedArrayError as damage:
            raise RejectedInputError("a damaged array file", str(damage)) from None
        except UnreachableError as error:
            raise TransientError(str(error)) from error

    def clips(self, item: Item) -> Iterator[Clip]:
        """Yield the windows of one video."""
        segments, crops = segments_of(item)
        config = self._config
        rate = Fraction(config.fps).limit_denominator(1000)
        transform = make_transform(config, crops)
        clipper = Clipper(item, segments, config, rate)
        number = item.path.rpartition("#")[2] if _is_one_of_many(item.path) else 0
        try:
            video = _VideoArrays(self._open(item.local or self._url(item))).video(int(number))
        except DamagedArrayError as damage:
            raise RejectedInputError("a damaged array file", str(damage)) from None
        for index, values in enumerate(video):
            try:
                pixels = transform(_to_image(values, index), time_s=float(index / rate))
            except ValueError as error:
                raise RejectedInputError("a frame cannot be transformed", f"frame {index}: {error}") from None
            yield from clipper.add(Frame(pixels, index / rate, run=0))
        clipper.check()

    @functools.lru_cache(maxsize=2)  # noqa: B019 - a process has one source
    def _open(self, url: str) -> ArrayFile:
        return ArrayFile(url)

    def _url(self, item: Item) -> str:
        name = item.path.rpartition("#")[0] if _is_one_of_many(item.path) else item.path
        return resolve(self._base, name)

    def _list_inputs(self) -> Catalogue:
        entries, embedded, faults = [], {}, {}
        frame_bytes = self._config.size**2 * self._config.channels
        frames: dict[str, int] = {}
        for file in self._inputs.entries():
            if not file.name.endswith((".npy", ".npz")):
                continue
            try:
                videos = _VideoArrays(self._open(resolve(self._base, file.name)))
            except DamagedArrayError as damage:
                faults[file.name] = str(damage)
                entries.append(file)
                continue
            labels = videos.labels(self._config.label_names)
            for index, length in enumerate(videos.lengths):
                name = f"{file.name}#{index:06d}" if videos.many else file.name
                entries.append(Entry(name, file.size, file.version))
                frames[name] = length
                if labels:
                    embedded[name] = labels[index]
        if not entries:
            raise UserError(f"{self._path}: no .npy or .npz file found; check --source.path")
        needed = self._config.clip_frames
        short = {name: length for name, length in frames.items() if length < needed}
        names = {label: None for labels in embedded.values() for label in labels}
        reader = dataclasses.replace(read_labels(self._config.labels, tuple(names)), embedded=embedded, faults=faults)
        return make_catalogue(
            entries, reader, seed=self._seed, test_fraction=self._config.test_fraction,
            estimate_bytes=lambda entry: frames.get(entry.name, 1) * frame_bytes,
            doubts={name: f"too few frames: {length}; a clip needs {needed}" for name, length in short.items()},
        )  # fmt: skip


def _is_one_of_many(path: str) -> bool:
    """Return whether an item is a video of a file that holds several: FILE.npz#000000."""
    return not path.endswith((".npy", ".npz"))


class _VideoArrays:
    """The videos of one file."""

    def __init__(self, file: ArrayFile) -> None:
        self._file = file
        names = [name for name in file.headers if name not in (LABELS, LENGTHS)]
        self._name = IMAGES if IMAGES in names else names[0] if len(names) == 1 else None
        if self._name is None:
            raise UserError(
                f"{file.url} has no array `{IMAGES}` (found: {', '.join(names) or 'none'}); save the frames under it"
            )
        header = file.headers[self._name]
        shape = header.shape
        if header.dtype != np.uint8 and header.dtype.kind != "f":
            raise UserError(f"{file.url}: the frames are {header.dtype}; they must be uint8, or floats from 0 to 1")
        if len(shape) not in (3, 4, 5) or (len(shape) > 3 and shape[-1] not in (1, 3, 4)):
            raise UserError(
                f"{file.url}: the frames have shape {list(shape)}; it must be [T, H, W, C] or [N, T, H, W, C]"
            )
        if 0 in shape[1:]:
            raise DamagedArrayError(f"its frames have shape {list(shape)}: there are no pixels")
        self.many = len(shape) == 5 or LENGTHS in file.headers
        file.check(self._name)
        if self.many:
            videos = math.prod(file.headers[LENGTHS].shape) if LENGTHS in file.headers else shape[0]
            if videos > FEW_VIDEOS + file.size_bytes // BYTES_PER_VIDEO:
                raise UserError(f"{file.url}: {videos} videos in {file.size_bytes} bytes are too many; split the file")
        if LENGTHS in file.headers:
            if file.headers[LENGTHS].dtype.kind not in "iu":
                raise UserError(f"{file.url}: `{LENGTHS}` is {file.headers[LENGTHS].dtype}; it must be integers [N]")
            lengths = file.array(LENGTHS)
            self.lengths = [int(length) for length in lengths.ravel()]
            if min(self.lengths, default=0) < 0 or sum(self.lengths) != shape[0]:
                raise UserError(f"{file.url}: `{LENGTHS}` sums to {sum(self.lengths)}, but there are {shape[0]} frames")
        else:
            self.lengths = [shape[1]] * shape[0] if self.many else [shape[0]]

    def video(self, number: int) -> NDArray[Any]:
        """Return one video, [T, H, W] or [T, H, W, C]; DamagedArrayError if the file is truncated."""
        frames = self._file.array(self._name or "")
        if not self.many:
            return frames
        if frames.ndim == 5:
            video: NDArray[Any] = frames[number]
            return video
        start = sum(self.lengths[:number])
        return frames[start : start + self.lengths[number]]

    def labels(self, names: tuple[str, ...]) -> list[dict[str, str]]:
        """Return the labels of each video; an empty list if the file has none."""
        if LABELS not in self._file.headers:
            return []
        header = self._file.headers[LABELS]
        shape = (*header.shape, 1) if len(header.shape) == 1 else header.shape
        if len(shape) != 2 or shape[0] != len(self.lengths) or header.dtype.kind not in "iufUSb":
            raise UserError(
                f"{self._file.url}: `{LABELS}` is {header.dtype} {list(header.shape)} for {len(self.lengths)} videos; "
                "it must be numbers or strings [N, K]"
            )
        if shape[1] != len(names):
            raise UserError(
                f"{self._file.url}: `{LABELS}` has {shape[1]} columns; name each of them in "
                f"--source.arrays.label-names, currently {' '.join(names)}"
            )
        try:
            rows = self._file.array(LABELS).reshape(shape).tolist()
        except (DamagedArrayError, ValueError, SystemError) as damage:  # strings of NumPy need not be Unicode
            raise UserError(f"{self._file.url}: `{LABELS}` cannot be read: {damage}") from None
        return [dict(zip(names, map(_text, row))) for row in rows]


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return as_text(value.decode("utf-8", "surrogateescape"))
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _to_image(values: NDArray[Any], index: int) -> Image.Image:
    """Return a frame as an image; RejectedInputError if its values are out of range."""
    if values.dtype != np.uint8:
        if not (values.min() >= 0 and values.max() <= 1):  # also true for NaN
            raise RejectedInputError(
                "values are not between 0 and 1", f"frame {index}: {values.min()} to {values.max()}"
            )
        values = np.rint(np.asarray(values, np.float64) * 255).astype(np.uint8)
    values = np.ascontiguousarray(values.squeeze(-1) if values.shape[-1:] == (1,) and values.ndim == 3 else values)
    return Image.fromarray(values)

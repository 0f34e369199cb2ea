"""Folders of images: each folder with images is a video, with its images in the order of the numbers in their names."""

import hashlib
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from cluster.errors import UserError
from cluster.storage import api as storage
from preprocessing.clip import Clip, Item, RejectedInputError
from preprocessing.decoding.input_file import copy_input, open_input, reading_error
from preprocessing.decoding.timing import Frame
from preprocessing.decoding.transform import MIN_SIDE, Transform
from preprocessing.sources.catalogue import Catalogue, make_catalogue, segments_of
from preprocessing.sources.clipping import Clipper, make_transform
from preprocessing.sources.config import FramesConfig
from preprocessing.sources.file_source import FileSource
from preprocessing.sources.listing import Entry, list_folder, resolve
from preprocessing.sources.names import natural_key

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".gif"})


class FramesSource(FileSource[FramesConfig]):
    """Windows of consecutive images of every folder."""

    untrusted = True

    def clips(self, item: Item) -> Iterator[Clip]:
        """Yield the windows of one folder while its images are decoded."""
        segments, crops = segments_of(item)
        config = self._config
        rate = Fraction(config.fps).limit_denominator(1000)
        transform = make_transform(config, crops)
        clipper = Clipper(item, segments, config, rate)
        folder = item.local or resolve(self._base, item.path)
        for index, name in enumerate(self._list_images(folder)):
            try:
                with open_input(storage.join(folder, name)) as file:
                    time = index / rate
                    pixels = read_image(file, transform, max_pixels=config.max_pixels, time_s=float(time))
            except RejectedInputError as fault:
                raise RejectedInputError(fault.reason, "; ".join(filter(None, [name, fault.where]))) from None
            yield from clipper.add(Frame(pixels, time, run=0))
        clipper.check()

    def _copy(self, url: str, folder: Path) -> str:
        for name in self._list_images(url):
            copy_input(storage.join(url, name), folder / name)
        return str(folder)

    def _list_images(self, folder: str) -> list[str]:
        if storage.is_remote(folder):
            names = [name for name in storage.list_files(folder) if "/" not in name]
        else:
            names = [entry.name for entry in list_folder(folder, deep=False)]
        return sorted(filter(is_image, names), key=natural_key)

    def _list_inputs(self) -> Catalogue:
        listed, needed = list(self._list_image_folders()), self._config.clip_frames
        short = (entry for entry in listed if entry.size < needed)
        catalogue = make_catalogue(
            listed,
            self._labels,
            seed=self._seed,
            test_fraction=self._config.test_fraction,
            estimate_bytes=lambda entry: self._estimate_bytes(entry.size),
            doubts={entry.name: f"too few images: {entry.size}; a clip needs {needed}" for entry in short},
        )
        if not catalogue.items:
            raise UserError(f"{self._path}: no folder with images found; each folder of images is one video")
        return catalogue

    def _list_image_folders(self) -> Iterator[Entry]:
        """List each folder as an entry whose size is its number of images."""
        inputs = self._inputs
        if inputs.explicit:
            raise UserError(f"source.path {self._path}: the source `frames` needs a folder of image folders")
        counts: Counter[str] = Counter()
        digests: defaultdict[str, hashlib._Hash] = defaultdict(hashlib.sha256)
        for entry in inputs.entries():
            if is_image(entry.name):
                folder = entry.name.rpartition("/")[0] or "."
                digests[folder].update(f"{entry.name} {entry.version}\n".encode("utf-8", "surrogateescape"))
                counts[folder] += 1
        for folder in sorted(digests):
            yield Entry(folder, counts[folder], f"{counts[folder]}-{digests[folder].hexdigest()[:24]}")


def is_image(name: str) -> bool:
    """Return whether a file is an image, judging by its name."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def read_image(file: BinaryIO, transform: Transform, *, max_pixels: int, time_s: float = 0.0) -> NDArray[np.uint8]:
    """Return the frame made from an image, uint8 [size, size, channels].

    The image is rotated according to its EXIF orientation, and 16-bit grey is scaled to 8 bits.

    Raises:
        RejectedInputError: the image cannot be decoded, is damaged, too large or too small.
        TransientError: the file could not be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about large images: max_pixels is the limit here
            image = Image.open(file)
        width, height = image.size
        if width * height > max_pixels:
            raise RejectedInputError("images are too large", f"{width}x{height} pixels, allowed are {max_pixels}")
        if min(width, height) < MIN_SIDE:
            raise RejectedInputError(
                "images are too small", f"{width}x{height} pixels; {MIN_SIDE} are needed on each side"
            )
        image.load()
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith(("I", "F")):
            values = np.asarray(upright).astype(np.float64)
            scale = 255 / 65535 if upright.mode.startswith("I") else 1.0
            upright = Image.fromarray(np.clip(np.rint(values * scale), 0, 255).astype(np.uint8))
        transparent = "A" in upright.mode or "a" in upright.mode or "transparency" in upright.info
        return transform(upright.convert("RGBA" if transparent else "RGB"), time_s=time_s)
    except RejectedInputError:
        raise
    except UnidentifiedImageError:
        raise RejectedInputError("an image cannot be decoded", "it is not an image of a known kind") from None
    except Image.DecompressionBombError as error:
        raise RejectedInputError("images are too large", str(error)) from None
    except Exception as error:  # Pillow's decoders raise nearly every type of exception on damaged files
        if isinstance(error, OSError) and error.errno is not None:
            raise reading_error(getattr(file, "name", "an image"), error) from error
        raise RejectedInputError("an image cannot be decoded", str(error) or type(error).__name__) from None

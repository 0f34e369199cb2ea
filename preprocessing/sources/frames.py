"""Folders of images: each folder with images is a video, its images in the order of the numbers in their names."""

import hashlib
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from fractions import Fraction
from pathlib import PurePosixPath
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from cluster.errors import UserError
from cluster.storage import api as storage
from preprocessing.clip import Clip, Item, RejectedInputError
from preprocessing.decoding.timing import Frame
from preprocessing.decoding.transform import MIN_SIDE, FrameTransform
from preprocessing.sources.catalogue import Catalogue, make_catalogue, natural, segments_of
from preprocessing.sources.catalogued import CataloguedSource
from preprocessing.sources.clipping import Clipper
from preprocessing.sources.config import FramesConfig
from preprocessing.sources.listing import Entry, address, below, find_inputs, open_input

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".gif"})


class FramesSource(CataloguedSource[FramesConfig]):
    """Windows of consecutive images of every folder."""

    untrusted = True

    def clips(self, item: Item) -> Iterator[Clip]:
        """The windows of one folder, as its images are decoded."""
        segments, crop = segments_of(item)
        config = self._config
        rate = Fraction(config.fps).limit_denominator(1000)
        transform = FrameTransform(config.size, config.channels, config.fit, crop)
        clipper = Clipper(item, segments, config, rate)
        folder = address(self._path, item.path) if item.path != "." else self._path
        for index, name in enumerate(self._images(folder)):
            with open_input(storage.join(folder, name)) as file:
                try:
                    pixels = read_image(file, transform, max_pixels=config.max_pixels)
                except RejectedInputError as fault:
                    raise RejectedInputError(fault.reason, "; ".join(filter(None, [name, fault.where]))) from None
            yield from clipper.add(Frame(pixels, index / rate, run=0))
        clipper.check()

    def _images(self, folder: str) -> list[str]:
        if storage.is_s3(folder):
            names = [name for name in storage.list_files(folder) if "/" not in name]
        else:
            names = [entry.name for entry in below(folder, deep=False)]
        return sorted(filter(is_image, names), key=natural)

    def _listed(self) -> Catalogue:
        config = self._config
        frame_bytes = config.size**2 * config.channels
        overlap = config.clip_frames / (config.stride or config.clip_frames)

        def estimate(entry: Entry) -> int:
            return round(entry.size * frame_bytes * overlap)

        catalogue = make_catalogue(
            self._folders(), self._labels, seed=self._seed, test_fraction=config.test_fraction, estimate=estimate
        )
        if not catalogue.items:
            raise UserError(f"{self._path}: there is no folder with images; each folder of images is a video")
        return catalogue

    def _folders(self) -> Iterator[Entry]:
        """Each folder as an entry whose size is the number of its images."""
        inputs = find_inputs(self._path)
        if inputs.chosen:
            raise UserError(f"source.path {self._path}: the source `frames` takes a folder of folders of images")
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
    """Whether a file is an image by its name."""
    return PurePosixPath(name).suffix.lower() in IMAGES


def read_image(file: BinaryIO, transform: FrameTransform, *, max_pixels: int) -> NDArray[np.uint8]:
    """The frame that an image gives: upright as its EXIF says, 16-bit grey scaled to 8.

    Raises:
        RejectedInputError: it cannot be decoded, is damaged, too large or too small.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ours is the limit
            picture = Image.open(file)
        width, height = picture.size
        if width * height > max_pixels:
            raise RejectedInputError("images are too large", f"{width}x{height} pixels, allowed are {max_pixels}")
        if min(width, height) < MIN_SIDE:
            raise RejectedInputError(
                "images are too small", f"{width}x{height} pixels; {MIN_SIDE} are needed on each side"
            )
        picture.load()
        upright = ImageOps.exif_transpose(picture)
        if upright.mode.startswith(("I", "F")):
            values = np.asarray(upright).astype(np.float64)
            scale = 255 / 65535 if upright.mode.startswith("I") else 1.0
            upright = Image.fromarray(np.clip(np.rint(values * scale), 0, 255).astype(np.uint8))
        transparent = "A" in upright.mode or "a" in upright.mode or "transparency" in upright.info
        return transform(upright.convert("RGBA" if transparent else "RGB"))
    except RejectedInputError:
        raise
    except Image.DecompressionBombError as error:
        raise RejectedInputError("images are too large", str(error)) from None
    except Exception as error:  # Pillow's decoders raise nearly everything on damaged files
        if isinstance(error, OSError) and error.errno is not None:
            from preprocessing.clip import TransientError

            raise TransientError(f"reading failed: {error.strerror}") from error
        raise RejectedInputError("an image cannot be decoded", str(error) or type(error).__name__) from None

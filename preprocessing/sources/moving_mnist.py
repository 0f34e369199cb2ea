"""Moving MNIST: handwritten digits that move in straight lines and bounce off the edges of the frame.

The split is that of MNIST: train uses digits of its training set, test those of its test set.
"""

import functools
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from preprocessing.clip import Clip, Factors, Item, Label
from preprocessing.sources.config import MovingMnistConfig
from preprocessing.sources.generated import rng_for

Array = NDArray[np.float64]

VERSION = "1"
"""Incremented when the rendering changes, so that shards of another version are detected."""
MAX_BYTES = 2**28
"""Most bytes that a packed file may unpack to; a few of them could fill the memory otherwise."""
SIDE = 28
"""Height and width of a digit, in pixels."""
FRAMES_PER_SECOND = 10.0
"""Nominal; the speed is set per frame."""
ACTIONS = ("right down", "left down", "left up", "right up")
"""Initial direction of the first digit, by quadrant."""
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
"""Image and label file of each MNIST set; each may end in .gz."""


class MovingMnistSource:
    """Groups of digit images, several clips of each.

    Args:
        path: folder or s3:// prefix with the four MNIST files.
        config: number, size and speed of the digits.
        seed: seed of the choice of digits, their positions and directions.
    """

    untrusted = False
    vocabulary: dict[str, list[str]]
    factors: Factors

    def __init__(self, path: str, config: MovingMnistConfig, seed: int) -> None:
        self._path, self._config, self._seed = path, config, seed
        numbers = range(1, config.digits + 1)
        self._digit_labels = [f"digit {number}" for number in numbers] if config.digits > 1 else ["digit"]
        self._axes = [f"{axis}{number}" if config.digits > 1 else axis for number in numbers for axis in "xy"]
        self.vocabulary = {"action": list(ACTIONS)}
        self.vocabulary |= {name: [str(digit) for digit in range(10)] for name in self._digit_labels}
        self.factors = dict.fromkeys(self._axes, "frame")

    def items(self) -> list[Item]:
        """Return one item per group of digit images."""
        config = self._config
        size = config.clips_per_identity * config.clip_frames * config.size**2 * config.channels
        return [
            Item(key=f"mnist-{split}-{number:06d}", split=split, estimated_bytes=size, clips=config.clips_per_identity)
            for split, count in (("train", config.train_identities), ("test", config.test_identities))
            for number in range(count)
        ]

    def clips(self, item: Item) -> Iterator[Clip]:
        """Yield the clips of a group, each with its own motion."""
        config = self._config
        images, digits = self._digits[item.split]
        number = int(item.key.rpartition("-")[2])
        chosen = self._chosen(item.split, number, len(images))
        for take in range(config.clips_per_identity):
            rng = rng_for(f"{self._seed}/{item.key}/{take}")
            paths = [bounce(rng, config.clip_frames, config.size - SIDE, config.speed) for _ in chosen]
            labels: dict[str, Label] = {"action": heading(paths[0][1])}
            labels |= {name: int(digits[index]) for name, index in zip(self._digit_labels, chosen)}
            corners = np.concatenate([path for path, _ in paths], axis=1)
            labels |= {axis: corners[:, column].tolist() for column, axis in enumerate(self._axes)}
            grey = render([images[index] for index in chosen], [path for path, _ in paths], config.size)
            yield Clip(
                key=f"{item.key}-{take}",
                frames=np.repeat(grey[..., None], config.channels, axis=-1),
                labels=labels,
                identity=item.key,
                source="moving_mnist",
                start_s=0.0,
                fps=FRAMES_PER_SECOND,
            )

    def fingerprint(self) -> str:
        """Return the SHA-256 of digits and rendering version. Reads all files, so an invalid one is found early."""
        digest = hashlib.sha256(f"moving_mnist/{VERSION}".encode())
        for split in FILES:
            for array in self._digits[split]:
                digest.update(array.tobytes())
        return digest.hexdigest()

    def _chosen(self, split: str, number: int, count: int) -> list[int]:
        """Return the images of a group: all are used once, in random order, before any is used again."""
        first = number * self._config.digits
        draws = (divmod(index, count) for index in range(first, first + self._config.digits))
        return [int(self._permutation(split, epoch, count)[position]) for epoch, position in draws]

    @functools.lru_cache(maxsize=4)  # noqa: B019 - a process has one source
    def _permutation(self, split: str, epoch: int, count: int) -> NDArray[np.int64]:
        return rng_for(f"{self._seed}/{split}/{epoch}").permutation(count)

    @functools.cached_property
    def _digits(self) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        """Images, uint8 [N, 28, 28], and digits [N] of each split."""
        found = {}
        for split, (image_file, label_file) in FILES.items():
            image_url, images = self._read(image_file, 3)
            label_url, digits = self._read(label_file, 1)
            if images.shape[1:] != (SIDE, SIDE) or not len(images):
                raise UserError(
                    f"{image_url}: the images have shape {images.shape}; MNIST is [N, {SIDE}, {SIDE}], N > 0"
                )
            if len(images) != len(digits) or digits.max() > 9:
                raise UserError(
                    f"{label_url} holds {len(digits)} labels up to {digits.max()}; MNIST has one for each of the "
                    f"{len(images)} images, at most 9"
                )
            found[split] = (images, digits)
        return found

    def _read(self, name: str, axes: int) -> tuple[str, NDArray[np.uint8]]:
        for url in (storage.join(self._path, name), storage.join(self._path, f"{name}.gz")):
            try:
                return url, read_idx(url, storage.read_bytes(url), axes)
            except MissingFileError:
                continue
        raise UserError(
            f"{self._path}: found neither {name} nor {name}.gz; set --source.path to a folder with the four MNIST files"
        )


def read_idx(url: str, data: bytes, axes: int) -> NDArray[np.uint8]:
    """Return the array in an IDX file of unsigned bytes, gzipped or not.

    Args:
        url: for messages.
        data: content of the file.
        axes: expected number of axes.

    Raises:
        UserError: the file is in another format, damaged or truncated.
    """
    if data[:2] == b"\x1f\x8b":
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
                data = packed.read(MAX_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{url} is damaged: {error}; download it again") from None
        if len(data) > MAX_BYTES:
            raise UserError(f"{url} unpacks to more than {MAX_BYTES:,} bytes; MNIST has 47,040,016; download it again")
    if data[:4] != bytes([0, 0, 8, axes]) or len(data) < 4 + 4 * axes:
        raise UserError(f"{url} is not an IDX file of unsigned bytes with {axes} axes; download it again")
    shape = [int.from_bytes(data[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(axes)]
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * axes)
    if len(values) != int(np.prod(shape, dtype=object)):
        raise UserError(f"{url} holds {len(values)} values, but its header states the shape {shape}; download it again")
    return values.reshape(shape)


def bounce(rng: np.random.Generator, length: int, room: int, speed: float) -> tuple[Array, Array]:
    """Return the path of a digit with a random start and direction that bounces off the edges.

    The path between two walls is a straight path, folded.

    Args:
        rng: source of start and direction.
        length: number of frames T.
        room: largest coordinate of the upper left corner, in pixels.
        speed: in pixels per frame.

    Returns:
        Upper left corners [T, 2] as (x, y) in [0, room], in pixels, and the initial velocity [2], in pixels per frame.
    """
    angle = rng.uniform(0, 2 * np.pi)
    velocity = speed * np.array([np.cos(angle), np.sin(angle)])
    straight = rng.uniform(0, room, 2) + velocity * np.arange(length)[:, None]
    return room - np.abs(straight % (2 * room) - room), velocity


def heading(velocity: Array) -> int:
    """Return the index into `ACTIONS` of a velocity [2] (x to the right, y down)."""
    right, down = velocity >= 0
    return {(True, True): 0, (False, True): 1, (False, False): 2, (True, False): 3}[bool(right), bool(down)]


def render(images: list[NDArray[np.uint8]], paths: list[Array], size: int) -> NDArray[np.uint8]:
    """Render images that move along paths, uint8 [T, size, size], with bilinear interpolation between pixels.

    Where images overlap, the brighter one is shown.
    """
    canvas = np.zeros((len(paths[0]), size + 1, size + 1))
    for image, path in zip(images, paths):
        corners = np.floor(path).astype(int)
        for frame, (left, top), (right, down) in zip(canvas, corners, path - corners):
            spread = np.zeros((SIDE + 1, SIDE + 1))
            for shift_y, weight_y in ((0, 1 - down), (1, down)):
                for shift_x, weight_x in ((0, 1 - right), (1, right)):
                    spread[shift_y : shift_y + SIDE, shift_x : shift_x + SIDE] += weight_y * weight_x * image
            region = frame[top : top + SIDE + 1, left : left + SIDE + 1]
            np.maximum(region, spread, out=region)
    return np.rint(canvas[:, :size, :size]).astype(np.uint8)

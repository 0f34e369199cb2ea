"""Moving MNIST: handwritten digits that move in straight lines and bounce off the edges of the frame.

The split is that of MNIST: digits of the training set in train, of the test set in test.
"""

import functools
import gzip
import hashlib
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from preprocessing.clip import Clip, Factors, Item, Label
from preprocessing.sources.config import MovingMnistConfig

Array = NDArray[np.float64]

VERSION = "1"
"""Raised when the drawing changes, so that shards of another version are noticed."""
SIDE = 28
"""Height and width of a digit, in pixels."""
FRAMES_PER_SECOND = 10.0
"""Nominal."""
ACTIONS = ("right down", "left down", "left up", "right up")
"""Where the first digit is heading at the start, by quadrant."""
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
"""The files of MNIST, which may end in .gz."""


class MovingMnistSource:
    """Groups of digit images, each in several clips.

    Args:
        path: folder or s3:// prefix with the four files of MNIST.
        config: how many, how large and how fast.
        seed: of the choice of digits, their places and directions.
    """

    untrusted = False
    vocabulary: dict[str, list[str]]
    factors: Factors

    def __init__(self, path: str, config: MovingMnistConfig, seed: int) -> None:
        self._path, self._config, self._seed = path, config, seed
        names = [f"digit {place}" for place in range(1, config.digits + 1)] if config.digits > 1 else ["digit"]
        self._digit_labels = names
        self.vocabulary = {"action": list(ACTIONS)} | {name: [str(digit) for digit in range(10)] for name in names}
        axes = [
            f"{axis}{place}" if config.digits > 1 else axis for place in range(1, config.digits + 1) for axis in "xy"
        ]
        self._axes = axes
        self.factors = dict.fromkeys(axes, "frame")
        if config.size < SIDE + 2:
            raise ValueError(f"source.moving_mnist.size is {config.size}; a digit of {SIDE} pixels needs room to move")

    def items(self) -> list[Item]:
        """One item per group of digit images."""
        config = self._config
        size = config.clips_per_identity * config.clip_frames * config.size**2 * config.channels
        return [
            Item(key=f"mnist-{split}-{number:06d}", split=split, estimated_bytes=size, clips=config.clips_per_identity)
            for split, count in (("train", config.train_identities), ("test", config.test_identities))
            for number in range(count)
        ]

    def clips(self, item: Item) -> Iterator[Clip]:
        """All clips of a group, each with a motion of its own."""
        config = self._config
        images, digits = self._digits[item.split]
        number = int(item.key.rpartition("-")[2])
        chosen = self._chosen(item.split, number, len(images))
        for take in range(config.clips_per_identity):
            random = _random(f"{self._seed}/{item.key}/{take}")
            paths = [bounce(random, config.clip_frames, config.size - SIDE, config.speed) for _ in chosen]
            labels: dict[str, Label] = {"action": heading(paths[0][1])}
            labels |= {name: int(digits[index]) for name, index in zip(self._digit_labels, chosen)}
            places = np.concatenate([path for path, _ in paths], axis=1)
            labels |= {axis: places[:, column].tolist() for column, axis in enumerate(self._axes)}
            grey = draw([images[index] for index in chosen], [path for path, _ in paths], config.size)
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
        """SHA-256 of the digits and of the drawing's version. Reads all files, so that a bad one is found at once."""
        digest = hashlib.sha256(f"moving_mnist/{VERSION}".encode())
        for split in FILES:
            for array in self._digits[split]:
                digest.update(array.tobytes())
        return digest.hexdigest()

    def _chosen(self, split: str, number: int, count: int) -> list[int]:
        """The images of a group: all images take their turn in a random order before any comes again."""
        first = number * self._config.digits
        places = (divmod(place, count) for place in range(first, first + self._config.digits))
        return [int(self._order(split, turn, count)[place]) for turn, place in places]

    @functools.lru_cache(maxsize=4)  # noqa: B019 - a process has one source
    def _order(self, split: str, turn: int, count: int) -> NDArray[np.int64]:
        return _random(f"{self._seed}/{split}/{turn}").permutation(count)

    @functools.cached_property
    def _digits(self) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        """Images [N, 28, 28] and digits [N] of each split."""
        found = {}
        for split, (image_file, label_file) in FILES.items():
            image_url, images = self._read(image_file, 3)
            label_url, digits = self._read(label_file, 1)
            if images.shape[1:] != (SIDE, SIDE) or not len(images):
                raise UserError(f"{image_url} holds images of {images.shape}; those of MNIST have {SIDE}x{SIDE} pixels")
            if len(images) != len(digits) or digits.max() > 9:
                raise UserError(f"{label_url} holds {len(digits)} labels up to {digits.max()} for {len(images)} digits")
            found[split] = (images, digits)
        return found

    def _read(self, name: str, axes: int) -> tuple[str, NDArray[np.uint8]]:
        for url in (storage.join(self._path, name), storage.join(self._path, f"{name}.gz")):
            try:
                return url, read_idx(url, storage.read_bytes(url), axes)
            except MissingFileError:
                continue
        raise UserError(
            f"{self._path}: neither {name} nor {name}.gz is there; source.path is a folder with MNIST's files"
        )


def read_idx(url: str, data: bytes, axes: int) -> NDArray[np.uint8]:
    """The array in an IDX file of unsigned bytes, gzipped or not; UserError if it is none or cut short."""
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{url} is damaged: {error}; get it again") from None
    if data[:4] != bytes([0, 0, 8, axes]) or len(data) < 4 + 4 * axes:
        raise UserError(f"{url} is no IDX file of bytes with {axes} axes")
    shape = [int.from_bytes(data[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(axes)]
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * axes)
    if len(values) != int(np.prod(shape, dtype=object)):
        raise UserError(f"{url} holds {len(values)} values, but its header tells of {shape}; get it again")
    return values.reshape(shape)


def bounce(random: np.random.Generator, length: int, room: int, speed: float) -> tuple[Array, Array]:
    """Upper left corners [T, 2] as (x, y) within [0, room], of something that starts anywhere in any direction, and its
    velocity [2] at the start, in pixels per frame. A path between two mirrors is a straight one, folded."""
    angle = random.uniform(0, 2 * np.pi)
    velocity = speed * np.array([np.cos(angle), np.sin(angle)])
    straight = random.uniform(0, room, 2) + velocity * np.arange(length)[:, None]
    return room - np.abs(straight % (2 * room) - room), velocity


def heading(velocity: Array) -> int:
    """Index into `ACTIONS` of a velocity (x to the right, y downwards)."""
    right, down = velocity >= 0
    return {(True, True): 0, (False, True): 1, (False, False): 2, (True, False): 3}[bool(right), bool(down)]


def draw(images: list[NDArray[np.uint8]], paths: list[Array], size: int) -> NDArray[np.uint8]:
    """Frames [T, size, size] with each image at its place; between pixels, four neighbours share its light."""
    canvas = np.zeros((len(paths[0]), size + 1, size + 1))
    for image, path in zip(images, paths):
        corners = np.floor(path).astype(int)
        for frame, (left, top), (right_share, down_share) in zip(canvas, corners, path - corners):
            spread = np.zeros((SIDE + 1, SIDE + 1))
            for shift_y, share_y in ((0, 1 - down_share), (1, down_share)):
                for shift_x, share_x in ((0, 1 - right_share), (1, right_share)):
                    spread[shift_y : shift_y + SIDE, shift_x : shift_x + SIDE] += share_y * share_x * image
            place = frame[top : top + SIDE + 1, left : left + SIDE + 1]
            np.maximum(place, spread, out=place)
    return np.rint(canvas[:, :size, :size]).astype(np.uint8)


def _random(name: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))

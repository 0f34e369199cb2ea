"""Sprites, the field's standard set: characters of the Liberated Pixel Cup, laid together from their sheets.

A character wears one of six sheets in each of four layers, over black, with one pair of shoes: 6^4 = 1,296 characters.
Each performs three actions in three directions, in 8 frames of 64x64 pixels: 11,664 clips. The frame table, the order
of the layers and the split are those of the published benchmark.
"""

import functools
import hashlib
import io
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from preprocessing.clip import Clip, Factors, Item

ATTRIBUTES = ("body", "bottomwear", "topwear", "hair")
"""Static labels, which are also the layers from the skin outwards. The shoes come last and are always the same."""
SHEETS_PER_ATTRIBUTE = 6
SHOES = "shoes/1.png"
CHARACTERS = SHEETS_PER_ATTRIBUTE ** len(ATTRIBUTES)
TRAIN_CHARACTERS = 1000
SPLIT_SEED = 423
TILE = 64
SHEET_SIZE = (13 * TILE, 21 * TILE)
"""Width and height of a sheet, in pixels."""
FRAMES_PER_SECOND = 8.0
"""Nominal: the sheets state no rate."""

_WALK = (8, 1, 2, 3, 4, 5, 6, 7)
_CAST = (0, 1, 2, 3, 4, 5, 4, 6)
_SLASH = (0, 1, 2, 3, 4, 5, 4, 0)
ACTIONS: dict[str, tuple[int, tuple[int, ...]]] = {
    "walk front": (10, _WALK),
    "walk left": (9, _WALK),
    "walk right": (11, _WALK),
    "spellcard front": (2, _CAST),
    "spellcard left": (1, _CAST),
    "spellcard right": (3, _CAST),
    "slash front": (14, _SLASH),
    "slash left": (13, _SLASH),
    "slash right": (15, _SLASH),
}
"""Action and direction -> (row, columns) of its frames on a sheet, in the order of the benchmark's labels."""

Layer = tuple[NDArray[np.uint16], NDArray[np.uint16]]
"""A layer's frames of all actions as (colour * alpha + 127, 255 - alpha): [A*T, H, W, 3] and [A*T, H, W, 1]."""


class LpcSource:
    """All characters of the Sprites set, each in all nine actions.

    Args:
        path: folder (or s3:// prefix) with `body/0.png`, ..., `hair/5.png` and `shoes/1.png`.
    """

    untrusted = False

    def __init__(self, path: str) -> None:
        self.factors: Factors = {}
        self.vocabulary = {"action": list(ACTIONS)} | {
            name: [f"{name} {value}" for value in range(SHEETS_PER_ATTRIBUTE)] for name in ATTRIBUTES
        }
        self._path = path
        if not storage.list_files(path):
            raise UserError(f"{path}: the folder is empty; it must hold the Sprites sheets, such as body/0.png")

    def items(self) -> list[Item]:
        """One item per character, in the order of their numbers."""
        order = np.random.RandomState(SPLIT_SEED).permutation(CHARACTERS)
        train = set(order[:TRAIN_CHARACTERS].tolist())
        size = len(ACTIONS) * len(_WALK) * TILE * TILE * 3
        return [
            Item(
                key=f"lpc-{number:04d}",
                split="train" if number in train else "test",
                estimated_bytes=size,
                clips=len(ACTIONS),
            )
            for number in range(CHARACTERS)
        ]

    def clips(self, item: Item) -> Iterator[Clip]:
        """The nine clips of a character."""
        number = int(item.key.removeprefix("lpc-"))
        wears = {name: number // 6 ** (3 - place) % 6 for place, name in enumerate(ATTRIBUTES)}
        names = [*(f"{name}/{value}.png" for name, value in wears.items()), SHOES]
        rendered = lay_together([self._sheets[name][0] for name in names]).reshape(
            len(ACTIONS), len(_WALK), TILE, TILE, 3
        )
        for action, name in enumerate(ACTIONS):
            yield Clip(
                key=f"{item.key}-{name.replace(' ', '-')}",
                frames=rendered[action],
                labels={"action": action, **wears},
                identity=item.key,
                source="lpc",
                start_s=0.0,
                fps=FRAMES_PER_SECOND,
            )

    def fingerprint(self) -> str:
        """SHA-256 over the sheets' names and contents. Reads them all, so that a bad one is found before any work."""
        digest = hashlib.sha256()
        for name, (_, sha256) in self._sheets.items():
            digest.update(f"{name} {sha256}\n".encode())
        return digest.hexdigest()

    @functools.cached_property
    def _sheets(self) -> dict[str, tuple[Layer, str]]:
        """Layer and SHA-256 of each sheet."""
        names = [f"{name}/{value}.png" for name in ATTRIBUTES for value in range(SHEETS_PER_ATTRIBUTE)]
        sheets = {}
        for name in [*names, SHOES]:
            url = storage.join(self._path, name)
            try:
                data = storage.read_bytes(url)
            except MissingFileError:
                raise UserError(f"{url} is missing; the Sprites set needs this sheet") from None
            sheets[name] = (read_layer(url, data), hashlib.sha256(data).hexdigest())
        return sheets


def read_layer(name: str, data: bytes) -> Layer:
    """The frames of all actions from one sheet; UserError if it is no picture of the right size."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as picture:
            if picture.size != SHEET_SIZE:
                raise UserError(f"{name} is {picture.size[0]}x{picture.size[1]} pixels; a sheet has 832x1344")
            # Sheets are palette pictures with transparency.
            sheet = np.asarray(picture.convert("RGBA"), dtype=np.uint16)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError(f"{name} cannot be read as a picture ({error}); get the sheet again") from None
    tiles = sheet.reshape(21, TILE, 13, TILE, 4).swapaxes(1, 2)
    frames = np.concatenate([tiles[row, list(columns)] for row, columns in ACTIONS.values()])
    colour, alpha = frames[..., :3], frames[..., 3:]
    return colour * alpha + np.uint16(127), np.uint16(255) - alpha


def lay_together(layers: list[Layer]) -> NDArray[np.uint8]:
    """Lay layers over black, the first one lowest: out = round((colour * alpha + below * (255 - alpha)) / 255).

    Some pixels are translucent, so the rounding matters. A sum is at most 255 * 255 + 127, which 16 bits hold.
    """
    canvas = np.zeros_like(layers[0][0])
    for premultiplied, transparency in layers:
        canvas = canvas * transparency
        canvas += premultiplied
        canvas //= np.uint16(255)
    return canvas.astype(np.uint8)

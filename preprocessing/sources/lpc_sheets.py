"""Read the sheets of the two Sprites sets: images of 13 x 21 tiles, of which each action uses a few.

The tiles of an action are in one row. All layers of a character use the same tiles, so they can be composited.
"""

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from preprocessing.clip import Item

TILE = 64
"""Height and width of a tile, which is one frame, in pixels."""
COLUMNS, ROWS = 13, 21
"""Tiles of a sheet."""
FRAMES = 8
"""Frames per clip."""
FRAMES_PER_SECOND = 8.0
"""Nominal: the sheets state no rate."""
SPLIT_SEED = 423
"""Seed of the published Sprites split."""

ActionTable = dict[str, tuple[int, tuple[int, ...]]]
"""Action -> (row, columns) of its 8 frames on a sheet."""


@dataclass(frozen=True)
class Sheet:
    """The frames of one sheet."""

    frames: NDArray[np.uint8]
    """All actions one after the other, uint8 [A*T, 64, 64, 4], RGBA."""
    sha256: str
    """Hash of the file."""


def read_sheets(folder: str, names: Iterable[str], actions: ActionTable) -> dict[str, Sheet]:
    """Read sheets.

    Args:
        folder: folder or s3:// prefix.
        names: paths relative to `folder`.
        actions: frames to cut out.

    Raises:
        UserError: a sheet is missing or is not an image of the right size.
    """
    sheets = {}
    for name in names:
        url = storage.join(folder, name)
        try:
            data = storage.read_bytes(url)
        except MissingFileError:
            raise UserError(f"{url} is missing; the set needs this sheet; see docs/preprocessing.md") from None
        sheets[name] = Sheet(_cut_frames(url, data, actions), hashlib.sha256(data).hexdigest())
    return sheets


def fingerprint(sheets: dict[str, Sheet]) -> str:
    """Return the SHA-256 of the names and contents of sheets."""
    digest = hashlib.sha256()
    for name, sheet in sheets.items():
        digest.update(f"{name} {sheet.sha256}\n".encode())
    return digest.hexdigest()


def character_items(keys: Iterable[str], test: set[int], actions: ActionTable, repeat: int) -> list[Item]:
    """Return one item per character.

    Args:
        keys: keys of the characters.
        test: the numbers of those in the test split.
        actions: what each performs.
        repeat: how often a clip shows its action.
    """
    size = len(actions) * repeat * FRAMES * TILE * TILE * 3
    return [
        Item(key=key, split="test" if number in test else "train", estimated_bytes=size, clips=len(actions))
        for number, key in enumerate(keys)
    ]


def _cut_frames(url: str, data: bytes, actions: ActionTable) -> NDArray[np.uint8]:
    """Return the frames of all actions, uint8 [A*T, 64, 64, 4]; UserError if the image is not a sheet."""
    width, height = COLUMNS * TILE, ROWS * TILE
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.size != (width, height):
                raise UserError(f"{url} is {image.size[0]}x{image.size[1]} pixels; a sheet has {width}x{height}")
            # Sheets are palette images with transparency.
            sheet = np.asarray(image.convert("RGBA"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError(f"{url} cannot be read as an image ({error}); download the sheet again") from None
    tiles = sheet.reshape(ROWS, TILE, COLUMNS, TILE, 4).swapaxes(1, 2)
    return np.concatenate([tiles[row, list(columns)] for row, columns in actions.values()])

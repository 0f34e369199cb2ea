"""The Sprites of the VDSM paper: characters laid together from sheets of the Universal LPC set.

A character has one of seven bodies, five legs, four shirts and six hairs: 840 characters. Each is seen in nine clips of
8 frames of 64x64 pixels: 7,560 clips. Layers lie on a transparent canvas whose transparency is dropped at the end. The
published split was drawn without a seed; here a tenth of the characters, drawn with one, is the test split.
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
from preprocessing.sources.lpc import FRAMES_PER_SECOND, SHEET_SIZE, SPLIT_SEED, TILE

LAYERS: dict[str, dict[str, str]] = {
    "body": {
        name: f"body/male/{name}.png" for name in ("light", "dark", "dark2", "darkelf", "darkelf2", "tanned", "tanned2")
    },
    "legs": {
        **{f"{name} pants": f"legs/pants/male/{name}_pants_male.png" for name in ("magenta", "red", "teal", "white")},
        "robe skirt": "legs/skirt/male/robe_skirt_male.png",
    },
    "shirt": {
        name: f"torso/shirts/longsleeve/male/{name}_longsleeve.png" for name in ("brown", "teal", "maroon", "white")
    },
    "hair": {
        name: f"hair/male/plain/{file}.png"
        for name, file in (
            ("green", "green2"), ("blue", "blue2"), ("pink", "pink2"),
            ("raven", "raven"), ("white", "white-blonde2"), ("dark blonde", "dark-blonde"),
        )
    },
}  # fmt: skip
"""Attribute -> its values and their sheets, in the order in which the layers lie on each other."""

_ALL = (0, 1, 2, 3, 4, 5, 6, 7)
_CAST = (0, 1, 2, 3, 4, 5, 6, 6)
_SLASH = (0, 1, 2, 3, 4, 5, 5, 5)
ACTIONS: dict[str, tuple[int, tuple[int, ...]]] = {
    "walk left": (9, _ALL),
    "walk front": (10, _ALL),
    "walk right": (11, _ALL),
    "spellcast left": (1, _CAST),
    "spellcast front": (2, _CAST),
    "spellcast right": (3, _CAST),
    "slash front": (14, _SLASH),
    "slash right": (15, _SLASH),
    "shoot back": (16, _SLASH),
}
"""Action -> (row, columns) of its frames on a sheet. The last one was meant to be a slash, and the published set counts
it as one; it is named here for what it shows."""
CHARACTERS = 7 * 5 * 4 * 6
TEST_CHARACTERS = CHARACTERS // 10
FRAMES = 8


class LpcUniversalSource:
    """All 840 characters, each in all nine clips.

    Args:
        path: folder (or s3:// prefix) that holds `body`, `legs`, `torso` and `hair`.
    """

    untrusted = False

    def __init__(self, path: str) -> None:
        self.vocabulary = {"action": list(ACTIONS)} | {name: list(sheets) for name, sheets in LAYERS.items()}
        self.factors: Factors = {}
        self._path = path

    def items(self) -> list[Item]:
        """One item per character, in the order of their numbers: body first, then shirt, legs and hair."""
        test = set(np.random.RandomState(SPLIT_SEED).permutation(CHARACTERS)[-TEST_CHARACTERS:].tolist())
        size = len(ACTIONS) * FRAMES * TILE * TILE * 3
        return [
            Item(
                key=f"lpcu-{number:03d}",
                split="test" if number in test else "train",
                estimated_bytes=size,
                clips=len(ACTIONS),
            )
            for number in range(CHARACTERS)
        ]

    def clips(self, item: Item) -> Iterator[Clip]:
        """The nine clips of a character."""
        from PIL import Image

        wears = wardrobe(int(item.key.rpartition("-")[2]))
        canvas = Image.new("RGBA", (TILE, len(ACTIONS) * FRAMES * TILE))
        for name, sheets in LAYERS.items():
            sheet = list(sheets.values())[wears[name]]
            canvas = Image.alpha_composite(canvas, Image.fromarray(self._strips[sheet][0]))
        frames = np.asarray(canvas)[..., :3].reshape(len(ACTIONS), FRAMES, TILE, TILE, 3)
        for action, name in enumerate(ACTIONS):
            yield Clip(
                key=f"{item.key}-{name.replace(' ', '-')}",
                frames=frames[action],
                labels={"action": action, **wears},
                identity=item.key,
                source="lpc_universal",
                start_s=0.0,
                fps=FRAMES_PER_SECOND,
            )

    def fingerprint(self) -> str:
        """SHA-256 over the sheets' names and contents. Reads them all, so that a bad one is found before any work."""
        digest = hashlib.sha256()
        for name, (_, sha256) in self._strips.items():
            digest.update(f"{name} {sha256}\n".encode())
        return digest.hexdigest()

    @functools.cached_property
    def _strips(self) -> dict[str, tuple[NDArray[np.uint8], str]]:
        """The frames of all actions of each sheet, one below the other (uint8 [A*T*64, 64, 4]), and its SHA-256."""
        strips = {}
        for sheets in LAYERS.values():
            for name in sheets.values():
                url = storage.join(self._path, name)
                try:
                    data = storage.read_bytes(url)
                except MissingFileError:
                    raise UserError(f"{url} is missing; the Sprites of the Universal set need this sheet") from None
                strips[name] = (_strip(url, data), hashlib.sha256(data).hexdigest())
        return strips


def wardrobe(number: int) -> dict[str, int]:
    """What character `number` looks like, as indices into the values of `LAYERS`."""
    body, rest = divmod(number, 4 * 5 * 6)
    shirt, rest = divmod(rest, 5 * 6)
    legs, hair = divmod(rest, 6)
    return {"body": body, "legs": legs, "shirt": shirt, "hair": hair}


def _strip(name: str, data: bytes) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as picture:
            if picture.size != SHEET_SIZE:
                raise UserError(f"{name} is {picture.size[0]}x{picture.size[1]} pixels; a sheet has 832x1344")
            sheet = np.asarray(picture.convert("RGBA"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError(f"{name} cannot be read as a picture ({error}); get the sheet again") from None
    tiles = sheet.reshape(21, TILE, 13, TILE, 4).swapaxes(1, 2)
    return np.concatenate([tiles[row, list(columns)] for row, columns in ACTIONS.values()]).reshape(-1, TILE, 4)

"""The standard Sprites set: characters of the Liberated Pixel Cup, composited from their sheets.

A character wears one of six sheets in each of four layers, over black, with one pair of shoes: 6^4 = 1,296 characters.
Each performs three actions in three directions, in 8 frames of 64x64 pixels: 11,664 clips. The frame table, the order
of the layers and the split are those of the published benchmark.
"""

import functools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cluster.errors import UserError
from cluster.storage import api as storage
from preprocessing.clip import Clip, Factors, Item
from preprocessing.sources import lpc_sheets
from preprocessing.sources.lpc_sheets import FRAMES, FRAMES_PER_SECOND, SPLIT_SEED, TILE, ActionTable, Sheet

ATTRIBUTES = ("body", "bottomwear", "topwear", "hair")
"""Static labels, which are also the layers from bottom to top. The shoes are on top and always the same."""
SHEETS_PER_ATTRIBUTE = 6
SHOES = "shoes/1.png"
CHARACTERS = SHEETS_PER_ATTRIBUTE ** len(ATTRIBUTES)
TRAIN_CHARACTERS = 1000

_WALK = (8, 1, 2, 3, 4, 5, 6, 7)
_CAST = (0, 1, 2, 3, 4, 5, 4, 6)
_SLASH = (0, 1, 2, 3, 4, 5, 4, 0)
ACTIONS: ActionTable = {
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
"""Action and direction, in the order of the benchmark's labels."""

Layer = tuple[NDArray[np.uint16], NDArray[np.uint16]]
"""The frames of one sheet as (colour * alpha + 127, 255 - alpha): [A*T, H, W, 3] and [A*T, H, W, 1]."""


class LpcSource:
    """All characters of the Sprites set, each in all nine actions.

    Args:
        path: folder (or s3:// prefix) with `body/0.png`, ..., `hair/5.png` and `shoes/1.png`.
        repeat: how often a clip shows its action.
    """

    untrusted = False

    def __init__(self, path: str, repeat: int = 1) -> None:
        self.factors: Factors = {}
        self.vocabulary = {"action": list(ACTIONS)} | {
            name: [f"{name} {value}" for value in range(SHEETS_PER_ATTRIBUTE)] for name in ATTRIBUTES
        }
        self._path, self._repeat = path, repeat
        if not storage.list_files(path):
            raise UserError(f"{path}: the folder is empty; it must hold the Sprites sheets, such as body/0.png")

    def items(self) -> list[Item]:
        """Return one item per character, in the order of their numbers."""
        order = np.random.RandomState(SPLIT_SEED).permutation(CHARACTERS)
        keys = (f"lpc-{number:04d}" for number in range(CHARACTERS))
        return lpc_sheets.character_items(keys, set(order[TRAIN_CHARACTERS:].tolist()), ACTIONS, self._repeat)

    def clips(self, item: Item) -> Iterator[Clip]:
        """Yield the nine clips of a character."""
        number = int(item.key.removeprefix("lpc-"))
        attributes = {name: number // 6 ** (3 - index) % 6 for index, name in enumerate(ATTRIBUTES)}
        names = [*(f"{name}/{value}.png" for name, value in attributes.items()), SHOES]
        frames = composite([self._layers[name] for name in names]).reshape(len(ACTIONS), FRAMES, TILE, TILE, 3)
        for action, name in enumerate(ACTIONS):
            yield Clip(
                key=f"{item.key}-{name.replace(' ', '-')}",
                frames=np.tile(frames[action], (self._repeat, 1, 1, 1)),
                labels={"action": action, **attributes},
                identity=item.key,
                source="lpc",
                start_s=0.0,
                fps=FRAMES_PER_SECOND,
            )

    def fingerprint(self) -> str:
        """Return the SHA-256 of all sheets. Reads them all, so an invalid one is found before any work is done."""
        return lpc_sheets.fingerprint(self._sheets)

    @functools.cached_property
    def _sheets(self) -> dict[str, Sheet]:
        names = [f"{name}/{value}.png" for name in ATTRIBUTES for value in range(SHEETS_PER_ATTRIBUTE)]
        return lpc_sheets.read_sheets(self._path, [*names, SHOES], ACTIONS)

    @functools.cached_property
    def _layers(self) -> dict[str, Layer]:
        return {name: to_layer(sheet.frames) for name, sheet in self._sheets.items()}


def to_layer(frames: NDArray[np.uint8]) -> Layer:
    """Precompute the factors of `composite` from RGBA frames [A*T, H, W, 4]."""
    colour, alpha = np.split(frames.astype(np.uint16), [3], axis=-1)
    return colour * alpha + np.uint16(127), np.uint16(255) - alpha


def composite(layers: list[Layer]) -> NDArray[np.uint8]:
    """Composite layers over black, from bottom to top: out = round((colour * alpha + below * (255 - alpha)) / 255).

    Some pixels are translucent, so the rounding matters. A sum is at most 255 * 255 + 127, which fits in 16 bits.
    """
    canvas = np.zeros_like(layers[0][0])
    for premultiplied, transparency in layers:
        canvas = canvas * transparency
        canvas += premultiplied
        canvas //= np.uint16(255)
    return canvas.astype(np.uint8)

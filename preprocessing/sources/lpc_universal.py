"""The Sprites of the VDSM paper: characters composited from sheets of the Universal LPC set.

A character has one of seven bodies, five legs, four shirts and six hairs: 840 characters. Each has nine clips of 8
frames of 64x64 pixels: 7,560 clips. Layers are composited on a transparent canvas whose alpha channel is then dropped.
The published split was drawn without a seed; here a random tenth of the characters, with a fixed seed, is the test
split.
"""

import functools
from collections.abc import Iterator

import numpy as np
from PIL import Image

from preprocessing.clip import Clip, Factors, Item
from preprocessing.sources import lpc_sheets
from preprocessing.sources.lpc_sheets import FRAMES, FRAMES_PER_SECOND, SPLIT_SEED, TILE, ActionTable, Sheet

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
"""Attribute -> its values and their sheets, with the layers from bottom to top."""

_ALL = (0, 1, 2, 3, 4, 5, 6, 7)
_CAST = (0, 1, 2, 3, 4, 5, 6, 6)
_SLASH = (0, 1, 2, 3, 4, 5, 5, 5)
ACTIONS: ActionTable = {
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
"""The published set labels the last action a slash by mistake; here it is named for what it shows."""
CHARACTERS = 7 * 5 * 4 * 6
TEST_CHARACTERS = CHARACTERS // 10


class LpcUniversalSource:
    """All 840 characters, each in all nine clips.

    Args:
        path: folder (or s3:// prefix) with the folders `body`, `legs`, `torso` and `hair`.
        repeat: how often a clip shows its action.
    """

    untrusted = False

    def __init__(self, path: str, repeat: int = 1) -> None:
        self.vocabulary = {"action": list(ACTIONS)} | {name: list(sheets) for name, sheets in LAYERS.items()}
        self.factors: Factors = {}
        self._path, self._repeat = path, repeat

    def items(self) -> list[Item]:
        """Return one item per character, in the order of their numbers: body first, then shirt, legs and hair."""
        order = np.random.RandomState(SPLIT_SEED).permutation(CHARACTERS)
        keys = (f"lpcu-{number:03d}" for number in range(CHARACTERS))
        return lpc_sheets.character_items(keys, set(order[-TEST_CHARACTERS:].tolist()), ACTIONS, self._repeat)

    def clips(self, item: Item) -> Iterator[Clip]:
        """Yield the nine clips of a character."""
        attributes = attributes_of(int(item.key.rpartition("-")[2]))
        canvas = Image.new("RGBA", (TILE, len(ACTIONS) * FRAMES * TILE))
        for name, sheets in LAYERS.items():
            sheet = list(sheets.values())[attributes[name]]
            # all frames one below the other
            canvas = Image.alpha_composite(canvas, Image.fromarray(self._sheets[sheet].frames.reshape(-1, TILE, 4)))
        frames = np.asarray(canvas)[..., :3].reshape(len(ACTIONS), FRAMES, TILE, TILE, 3)
        for action, name in enumerate(ACTIONS):
            yield Clip(
                key=f"{item.key}-{name.replace(' ', '-')}",
                frames=np.tile(frames[action], (self._repeat, 1, 1, 1)),
                labels={"action": action, **attributes},
                identity=item.key,
                source="lpc_universal",
                start_s=0.0,
                fps=FRAMES_PER_SECOND,
            )

    def fingerprint(self) -> str:
        """Return the SHA-256 of all sheets. Reads them all, so an invalid one is found before any work is done."""
        return lpc_sheets.fingerprint(self._sheets)

    @functools.cached_property
    def _sheets(self) -> dict[str, Sheet]:
        return lpc_sheets.read_sheets(
            self._path, [name for sheets in LAYERS.values() for name in sheets.values()], ACTIONS
        )


def attributes_of(number: int) -> dict[str, int]:
    """Return the attributes of character `number`, as indices into the values of `LAYERS`."""
    body, rest = divmod(number, 4 * 5 * 6)
    shirt, rest = divmod(rest, 5 * 6)
    legs, hair = divmod(rest, 6)
    return {"body": body, "legs": legs, "shirt": shirt, "hair": hair}

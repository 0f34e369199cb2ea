"""The program that drew a dataset, as a control of its evaluation: the perfect model."""

import functools
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cluster.errors import UserError

if TYPE_CHECKING:
    from preprocessing.clip import Item, Source
    from preprocessing.dataset.reader import ClipDataset


class SpritesRenderer:
    """Draws any character of a Sprites set in any action; see `load_renderer`."""

    def __init__(self, source: "Source") -> None:
        self._items: dict[str, Item] = {item.key: item for item in source.items()}
        self.identities = list(self._items)

        @functools.lru_cache(maxsize=64)
        def clips(identity: str) -> list[NDArray[np.uint8]]:
            return [clip.frames for clip in source.clips(self._items[identity])]

        self._clips = clips

    def draw(self, identity: str, action: int) -> NDArray[np.uint8]:
        """Return a clip of a character: uint8 [T, H, W, C]."""
        return self._clips(identity)[action]


def load_renderer(dataset: "ClipDataset", url: str, sheets: str) -> SpritesRenderer:
    """Return the renderer of a dataset.

    Args:
        dataset: either Sprites set.
        url: where it is, for messages.
        sheets: folder of the sheets that it was drawn from.

    Raises:
        UserError: the dataset is not one of Sprites, or was drawn from other sheets.
    """
    from preprocessing.sources.config import SourceConfig
    from preprocessing.sources.registry import make_source

    if dataset.source["name"] != "lpc":
        raise UserError(f"{url} was not drawn from Sprites sheets; leave out --sheets {sheets}")
    source = make_source(SourceConfig(name="lpc", path=sheets), seed=0)
    if source.fingerprint() != dataset.source_sha256:
        raise UserError(f"{sheets}: {url} was drawn from other sheets; give those")
    return SpritesRenderer(source)

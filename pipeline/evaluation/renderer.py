"""The program that drew a dataset, as a control of its evaluation: the perfect model, and the truth of swaps."""

import functools
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cluster.errors import UserError
from vdsm.evaluation.clips import ACTION
from vdsm.evaluation.moving_pixels import TrueSwap

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
    from pydantic import ValidationError

    from preprocessing.sources.config import SourceConfig
    from preprocessing.sources.registry import make_source

    if dataset.source["name"] != "lpc":
        raise UserError(f"{url} was not drawn from Sprites sheets; leave out --sheets {sheets}")
    try:
        config = SourceConfig(name="lpc", path=sheets, repeat=dataset.source.get("repeat", 1))
    except ValidationError:
        raise UserError(f"{url}: its manifest has an impossible source.repeat; shard it again") from None
    source = make_source(config, seed=0)
    if source.fingerprint() != dataset.source_sha256:
        raise UserError(f"{sheets}: {url} was drawn from other sheets; give those")
    return SpritesRenderer(source)


def load_true_swap(test: "ClipDataset") -> TrueSwap | None:
    """Return what gives the true swap of clips of a test split; None if that is not known.

    Figures and pendulums are drawn, by the motion of the one clip and the attributes of the other. In Sprites, where
    everybody performs every action in the same way, it is a clip of the split.
    """
    from preprocessing.sources.figures import FiguresSource
    from preprocessing.sources.pendulum import PendulumSource

    if test.source["name"] == "lpc":
        return _clip_of_identity(test)
    generator = _generator(test)
    if not isinstance(generator, FiguresSource | PendulumSource):
        return None

    def draw(dynamics_of: int, static_of: int) -> NDArray[np.uint8]:
        return generator.true_swap(test.keys[dynamics_of], test.identities[static_of])

    try:
        drawn = all(np.array_equal(draw(clip, clip), test.frames(clip)) for clip in (0, len(test) - 1))
    except (KeyError, ValueError):
        drawn = False
    return draw if drawn else None


def _generator(dataset: "ClipDataset") -> "Source | None":
    """Return the program that drew a dataset; None if it needs files or is unknown."""
    from pydantic import ValidationError

    from preprocessing.sources.config import SourceConfig
    from preprocessing.sources.registry import make_source

    if dataset.source["name"] not in ("figures", "pendulum"):
        return None
    try:
        return make_source(SourceConfig.model_validate(dataset.source), dataset.manifest["configuration"]["seed"])
    except (ValidationError, UserError, KeyError, TypeError, ValueError):
        return None  # of a later version, or not written by this program


def _clip_of_identity(test: "ClipDataset") -> TrueSwap | None:
    """Return what finds the clip of an identity in an action; None if there is not exactly one of each."""
    actions = test.labels[ACTION] if ACTION in test.labels else np.zeros(0, dtype=np.int64)
    index_of = {pair: index for index, pair in enumerate(zip(test.identities, actions.tolist(), strict=True))}
    wanted = {(identity, action) for identity in test.identities for action in actions.tolist()}
    if len(actions) != len(test) or len(index_of) < len(test) or wanted - index_of.keys():
        return None

    def find(dynamics_of: int, static_of: int) -> NDArray[np.uint8]:
        return test.frames(index_of[test.identities[static_of], int(actions[dynamics_of])])

    return find

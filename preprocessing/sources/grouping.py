"""Which split an identity belongs to: by a draw that depends on its name alone, so that it stays where it is when other
inputs come or go."""

import hashlib

from cluster.errors import UserError
from preprocessing.plan import SPLITS


def draw(seed: int, identity: str) -> float:
    """A number in [0, 1) that belongs to an identity."""
    digest = hashlib.sha256(f"{seed}/split/{identity}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


class Splitter:
    """Told of all identities first, it then says the split of each.

    Args:
        seed: of the draw.
        test_fraction: share that goes to the test split, of the identities whose labels do not tell. Each split gets
            one at least, where there are two.
    """

    def __init__(self, *, seed: int, test_fraction: float) -> None:
        self._seed, self._fraction = seed, test_fraction
        self._told: dict[str, str] = {}
        self._filled: set[str] = set()
        self._lowest: tuple[float, str] | None = None
        self._highest: tuple[float, str] | None = None

    def tell(self, identity: str, split: str | None) -> None:
        """There is this identity; its labels say that it belongs to `split`, or do not say.

        Raises:
            UserError: they say two things, or name no split.
        """
        if split is not None:
            if split not in SPLITS:
                raise UserError(f"the labels put {identity} into split {split!r}; it must be {' or '.join(SPLITS)}")
            before = self._told.setdefault(identity, split)
            if before != split:
                raise UserError(
                    f"the labels put {identity} into two splits, {before} and {split}; it can be in one only"
                )
            self._filled.add(split)
            return
        drawn = (draw(self._seed, identity), identity)
        self._filled.add("test" if drawn[0] < self._fraction else "train")
        self._lowest = min(self._lowest or drawn, drawn)
        self._highest = max(self._highest or drawn, drawn)

    def split(self, identity: str) -> str:
        """The split of an identity."""
        told = self._told.get(identity)
        if told is not None:
            return told
        drawn = (draw(self._seed, identity), identity)
        if self._lowest != self._highest:
            if "test" not in self._filled and drawn == self._lowest:
                return "test"
            if "train" not in self._filled and drawn == self._highest:
                return "train"
        return "test" if drawn[0] < self._fraction else "train"

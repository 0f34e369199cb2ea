"""Which split an identity belongs to: by a draw that depends on its name alone.

Where there are many, one that was drawn below the wanted share is in the test split, so that each stays where it is
when others come or go. Where there are few, the share would often be far off: there, those drawn lowest are taken.
"""

import hashlib

from cluster.errors import UserError
from preprocessing.sharding.plan import SPLITS

FEW = 100
"""Identities, up to which the share of the test split is exact."""


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
        self._few: dict[str, float] = {}
        self._lowest = 1.0

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
            return
        drawn = draw(self._seed, identity)
        self._lowest = min(self._lowest, drawn)
        if len(self._few) <= FEW:
            self._few[identity] = drawn

    def split(self, identity: str) -> str:
        """The split of an identity."""
        told = self._told.get(identity)
        if told is not None:
            return told
        if len(self._few) > FEW:
            drawn = draw(self._seed, identity)
            test = drawn < self._fraction or drawn == self._lowest
        else:
            ranked = sorted(self._few, key=self._few.__getitem__)
            wanted = min(len(ranked) - 1, max(1, round(self._fraction * len(ranked))))
            test = identity in ranked[:wanted]
        return "test" if test else "train"

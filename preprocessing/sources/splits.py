"""Assign each identity to a split by a random draw that depends only on the seed and the identity's name.

With many identities, those drawn below the test fraction are in the test split, so an identity keeps its split when
others are added or removed. With few, the resulting share would often be far off; there, the lowest draws are taken.
"""

import hashlib

from cluster.errors import UserError
from preprocessing.clip import SPLITS

FEW = 100
"""Up to this many identities, the share of the test split is exact."""


def draw(seed: int, identity: str) -> float:
    """Return the number in [0, 1) that belongs to an identity."""
    digest = hashlib.sha256(f"{seed}/split/{identity}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


class Splitter:
    """Collects all identities first, then assigns each to a split.

    Args:
        seed: seed of the draw.
        test_fraction: fraction in the test split, of the identities that have an input whose labels do not set the
            split. Each split gets at least one, if there are two and labels set the split of none of them.
    """

    def __init__(self, *, seed: int, test_fraction: float) -> None:
        self._seed, self._fraction = seed, test_fraction
        self._labelled: dict[str, str] = {}
        self._few: dict[str, float] = {}
        self._lowest = 1.0

    def add(self, identity: str, split: str | None) -> None:
        """Add an identity, with its split if the labels set it.

        Raises:
            UserError: the split is unknown, or contradicts an earlier one.
        """
        if split is not None:
            if split not in SPLITS:
                raise UserError(f"the labels put {identity} into split {split!r}; it must be {' or '.join(SPLITS)}")
            earlier = self._labelled.setdefault(identity, split)
            if earlier != split:
                raise UserError(
                    f"the labels put {identity} into two splits, {earlier} and {split}; assign it to one of them"
                )
            return
        drawn = draw(self._seed, identity)
        self._lowest = min(self._lowest, drawn)
        if len(self._few) <= FEW:
            self._few[identity] = drawn

    def split(self, identity: str) -> str:
        """Return the split of an identity."""
        labelled = self._labelled.get(identity)
        if labelled is not None:
            return labelled
        if len(self._few) > FEW:
            drawn = draw(self._seed, identity)
            test = drawn < self._fraction or drawn == self._lowest
        else:
            ranked = sorted(self._few, key=self._few.__getitem__)
            wanted = min(len(ranked) - 1, max(1, round(self._fraction * len(ranked))))
            test = identity in ranked[:wanted]
        return "test" if test else "train"

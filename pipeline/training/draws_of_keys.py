"""Randomness without state: a number for each clip or group, which is a hash of a seed and its name."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def derive_seed(*parts: int | str) -> int:
    """Return the seed of `parts`, in [0, 2^63): the start of the SHA-256 of their text."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def scatter(base: int, hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a pseudo-random uint64 for each of `hashes`, under the seed `base` (the finaliser of SplitMix64)."""
    with np.errstate(over="ignore"):
        x = hashes + np.uint64(base) * np.uint64(2) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def held_out(groups: Sequence[str], seed: int, fraction: float) -> frozenset[str]:
    """Return the groups held out for validation: the `fraction` (at least one) with the smallest hash under `seed`.

    Raises:
        ValueError: there are fewer than two groups, one to train on and one to validate on.
    """
    distinct = sorted(set(groups), key=lambda group: (draw_of_group(group, seed), group))
    return frozenset(distinct[: count_held_out(len(distinct), fraction)])


def draw_of_group(group: str, seed: int) -> int:
    """Return the number in [0, 2^63) by which groups are chosen for validation, the smallest first."""
    return derive_seed(seed, "validation", group)


def count_held_out(groups: int, fraction: float) -> int:
    """Return how many groups are held out. Raise ValueError if there are fewer than two."""
    if groups < 2:
        raise ValueError(
            f"the training split has {groups} group of clips (an identity, a video, clips that look alike, or a "
            "single clip where validation_unit is clip); validation holds out whole groups, so it needs at least 2"
        )
    return min(max(1, round(fraction * groups)), groups - 1)

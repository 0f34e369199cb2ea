"""Shared by the generators: choice and split of identities, reproducible random numbers, fingerprints."""

import dataclasses
import hashlib
import itertools
from collections.abc import Iterable
from typing import TypeVar

import numpy as np

from cluster.errors import UserError
from preprocessing.clip import Item

A = TypeVar("A")
Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""


def choose_identities(
    source: str, attributes: type[A], vocabulary: dict[str, list[str]], *, count: int, seed: int
) -> list[tuple[int, A]]:
    """Choose distinct combinations of static attributes at random.

    Args:
        source: name of the source, for the message.
        attributes: dataclass whose fields are attributes, each an index into its entry of `vocabulary`.
        vocabulary: attribute name -> names of its values.
        count: how many.
        seed: seed of the choice.

    Returns:
        Number and attributes of each chosen combination, in random order.

    Raises:
        UserError: there are fewer combinations.
    """
    names = [field.name for field in dataclasses.fields(attributes)]  # type: ignore[arg-type]
    every = [attributes(*values) for values in itertools.product(*(range(len(vocabulary[name])) for name in names))]
    if count > len(every):
        raise UserError(f"source.{source}.identities is {count}, but there are only {len(every)}; lower it")
    chosen = np.random.default_rng(seed).permutation(len(every))[:count]
    return [(int(number), every[number]) for number in chosen]


def split_items(
    source: str, keys: Iterable[str], *, test_fraction: float, estimated_bytes: int, clips: int
) -> list[Item]:
    """Return one item per identity; the last `test_fraction` of them, at least one, is the test split.

    Args:
        source: name of the source, for the message.
        keys: keys of the identities, in random order.
        estimated_bytes: size of the clips of each, in bytes.
        clips: number of clips of each.

    Raises:
        UserError: no identity would be left for training.
    """
    keys = list(keys)
    first_test = len(keys) - max(1, round(test_fraction * len(keys)))
    if first_test < 1:
        raise UserError(
            f"source.{source}.test_fraction is {test_fraction}, which leaves none of {len(keys)} identities for "
            "training; lower it"
        )
    return [
        Item(key=key, split="train" if index < first_test else "test", estimated_bytes=estimated_bytes, clips=clips)
        for index, key in enumerate(keys)
    ]


def rng_for(name: str) -> np.random.Generator:
    """Return the random generator whose seed is the SHA-256 of `name`."""
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def version_fingerprint(source: str, version: str) -> str:
    """Return the SHA-256 of a generator's name and version, for a source without files."""
    return hashlib.sha256(f"{source}/{version}".encode()).hexdigest()

"""Is a key given twice, is an identity in two splits? Answered for any number of clips in 8 bytes of memory each.

Digests are compared first. Only where two are the same are the names themselves looked up in the indexes.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.errors import UserError
from preprocessing.dataset.reader import read_index
from preprocessing.sharding.write_shard import Summary, digests

Digests = NDArray[np.uint64]


def check_disjoint(url: str, shards: list[dict[str, Any]], summaries: list[Summary]) -> dict[str, int]:
    """Number of identities in each split.

    Args:
        shards: the manifest's entries of the summaries' shards.

    Raises:
        UserError: an identity is in two splits, or a key appears twice; with the clips and their shards.
    """
    _check_keys(url, shards, np.concatenate([one.keys for one in summaries] or [digests([])]))
    splits = dict.fromkeys(shard["split"] for shard in shards)
    mine = {
        split: np.unique(np.concatenate([one.identities for one in summaries if one.index["split"] == split]))
        for split in splits
    }
    every, counts = np.unique(np.concatenate([*mine.values(), digests([])]), return_counts=True)
    _check_identities(url, shards, every[counts > 1])
    return {split: len(found) for split, found in mine.items()}


def _check_keys(url: str, shards: list[dict[str, Any]], keys: Digests) -> None:
    keys = np.sort(keys)
    twice = keys[1:][keys[1:] == keys[:-1]]
    seen: dict[str, str] = {}
    for shard, sample in _samples(url, shards, "key", twice):
        if sample["key"] in seen:
            raise UserError(f"clip key {sample['key']} appears twice, in {seen[sample['key']]} and {shard['path']}")
        seen[sample["key"]] = shard["path"]


def _check_identities(url: str, shards: list[dict[str, Any]], suspects: Digests) -> None:
    home: dict[str, tuple[str, str]] = {}
    for shard, sample in _samples(url, shards, "identity", suspects):
        split, clip = home.setdefault(sample["identity"], (shard["split"], sample["key"]))
        if split != shard["split"]:
            raise UserError(
                f"{shard['path']}: clip {sample['key']}: identity {sample['identity']} is in two splits, "
                f"{shard['split']} and {split} (clip {clip})"
            )


def _samples(
    url: str, shards: list[dict[str, Any]], field: str, wanted: Digests
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every sample whose name in `field` has one of the digests, with its shard; reads nothing if none is wanted."""
    if not len(wanted):
        return
    for shard in shards:
        samples = read_index(url, shard)
        found = np.isin(digests([sample[field] for sample in samples]), wanted)
        yield from ((shard, samples[place]) for place in np.flatnonzero(found))

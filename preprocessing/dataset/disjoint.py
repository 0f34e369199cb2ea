"""The checks that no clip key appears twice, and that no group and no identity is in two splits.

Keys and identities of any number of clips are compared as digests, 8 bytes each. Only where two digests are equal are
the names themselves read from the indexes.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np

from cluster.errors import UserError
from preprocessing.dataset.digests import Digests, digests
from preprocessing.dataset.format import Sample, ShardEntry
from preprocessing.dataset.index import ShardSummary, read_index


def check_groups(items: Iterable[tuple[str, str, str]]) -> None:
    """Check the inputs of a dataset, given as (key, split, group); an empty group stands for the key.

    Raises:
        UserError: a key appears twice, or a group is in two splits.
    """
    keys: set[str] = set()
    home: dict[str, str] = {}
    for key, split, group in items:
        if key in keys:
            raise UserError(f"two inputs have the key {key}; rename one of them")
        keys.add(key)
        other = home.setdefault(group or key, split)
        if other != split:
            raise UserError(
                f"group {group or key} is in two splits, {split} (input {key}) and {other}; assign it to one"
            )


def check_disjoint(url: str, shards: Sequence[ShardEntry], summaries: Sequence[ShardSummary]) -> dict[str, int]:
    """Check the clips of a dataset and return the number of identities in each split.

    Args:
        url: the dataset.
        shards: the manifest's entries of the shards.
        summaries: the summaries of the same shards.

    Raises:
        UserError: a key appears twice, or an identity is in two splits; the message names the clips and their shards.
    """
    _check_keys(url, shards, np.concatenate([one.keys for one in summaries] or [digests([])]))
    splits = dict.fromkeys(shard["split"] for shard in shards)
    identities = {
        split: np.unique(np.concatenate([one.identities for one in summaries if one.index["split"] == split]))
        for split in splits
    }
    distinct, counts = np.unique(np.concatenate([*identities.values(), digests([])]), return_counts=True)
    _check_identities(url, shards, distinct[counts > 1])
    return {split: len(found) for split, found in identities.items()}


def _check_keys(url: str, shards: Sequence[ShardEntry], keys: Digests) -> None:
    keys = np.sort(keys)
    repeated = keys[1:][keys[1:] == keys[:-1]]
    home: dict[str, str] = {}
    for shard, sample in _matching_samples(url, shards, "key", repeated):
        key = sample["key"]
        if key in home:
            raise UserError(f"clip key {key} appears twice, in {home[key]} and {shard['path']}")
        home[key] = shard["path"]


def _check_identities(url: str, shards: Sequence[ShardEntry], suspects: Digests) -> None:
    home: dict[str, tuple[str, str]] = {}
    for shard, sample in _matching_samples(url, shards, "identity", suspects):
        split, clip = home.setdefault(sample["identity"], (shard["split"], sample["key"]))
        if split != shard["split"]:
            raise UserError(
                f"{shard['path']}: clip {sample['key']}: identity {sample['identity']} is in two splits, "
                f"{shard['split']} and {split} (clip {clip})"
            )


def _matching_samples(
    url: str, shards: Sequence[ShardEntry], field: Literal["key", "identity"], wanted: Digests
) -> Iterator[tuple[ShardEntry, Sample]]:
    """Yield every sample whose `field` has one of the digests, with its shard; read nothing if none is wanted."""
    if not len(wanted):
        return
    for shard in shards:
        samples = read_index(url, shard)["samples"]
        found = np.isin(digests([sample[field] for sample in samples]), wanted)
        yield from ((shard, samples[index]) for index in np.flatnonzero(found))

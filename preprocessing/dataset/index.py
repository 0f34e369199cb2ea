"""Reading a shard's index, and the summary of it that a job can keep for any number of shards."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from preprocessing.dataset.errors import HASH_MISMATCH, damaged_file
from preprocessing.dataset.format import IndexEntry, IndexHeader, ShardIndex

Digests = NDArray[np.uint64]
"""[N] 64-bit digests of names."""


@dataclass(frozen=True)
class ShardSummary:
    """A shard's index without its samples: 8 bytes per clip."""

    index: IndexHeader
    index_sha256: str
    """SHA-256 of the stored index."""
    keys: Digests
    """Digests of the clips' keys, [N]."""
    identities: Digests
    """Digests of the distinct identities."""


def read_index(url: str, entry: IndexEntry) -> ShardIndex:
    """Return the index that an entry of the manifest names.

    Raises:
        DamagedDatasetError: the index is missing, or its hash differs from the manifest's.
    """
    try:
        data = storage.read_bytes(storage.join(url, entry["index"]))
    except MissingFileError:
        raise damaged_file(url, entry["index"], "it is missing") from None
    if hashlib.sha256(data).hexdigest() != entry["index_sha256"]:
        raise damaged_file(url, entry["index"], HASH_MISMATCH)
    index: ShardIndex = json.loads(data)
    return index


def summarize(index: ShardIndex, index_sha256: str) -> ShardSummary:
    """Return the summary of an index whose stored bytes have the given SHA-256."""
    samples = index["samples"]
    header: IndexHeader = {name: value for name, value in index.items() if name != "samples"}  # type: ignore[assignment]
    return ShardSummary(
        index=header,
        index_sha256=index_sha256,
        keys=digests(sample["key"] for sample in samples),
        identities=np.unique(digests(sample["identity"] for sample in samples)),
    )


def digests(names: Iterable[str]) -> Digests:
    """Return a 64-bit digest of each name, [N]."""
    joined = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(joined, dtype="<u8").astype(np.uint64)

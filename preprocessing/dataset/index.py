"""Reading a shard's index, and the summary of it that a job can keep for any number of shards."""

import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from preprocessing.dataset import schema
from preprocessing.dataset.errors import HASH_MISMATCH, damaged_file
from preprocessing.dataset.format import IndexEntry, IndexHeader, Manifest, Sample, ShardEntry, ShardIndex

MAX_HEADER = 2**16
"""Longest header of a `.frames.npy` member, in bytes."""

CONCURRENT_READS = 16
"""Indexes that are read from S3 at the same time."""

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


def read_index(url: str, entry: IndexEntry, *, complete: bool = False) -> ShardIndex:
    """Return the index that an entry of the manifest names.

    Args:
        url: the dataset.
        entry: names the index.
        complete: whether keys that a reader of clips does not need must be there too.

    Raises:
        DamagedDatasetError: the index is missing, its hash differs from the manifest's, or a field is not as the format
            declares it.
    """
    try:
        data = schema.read(storage.join(url, entry["index"]))
    except MissingFileError:
        raise damaged_file(url, entry["index"], "it is missing") from None
    if hashlib.sha256(data).hexdigest() != entry["index_sha256"]:
        raise damaged_file(url, entry["index"], HASH_MISMATCH)
    try:
        return schema.parse(data, ShardIndex, complete=complete)
    except schema.SchemaError as error:
        raise damaged_file(url, entry["index"], str(error)) from None


def read_samples(url: str, shard: ShardEntry, manifest: Manifest) -> list[Sample]:
    """Return the samples of a shard: their frames lie inside the tar, and every label is one of the manifest's.

    Raises:
        DamagedDatasetError: as for `read_index`, or the index contradicts the manifest.
    """
    samples = read_index(url, shard)["samples"]
    try:
        if len(samples) != shard["clips"]:
            raise schema.SchemaError(f"lists {len(samples)} clips, but the manifest says {shard['clips']}")
        for sample in samples:
            _check_sample(sample, shard["size_bytes"], manifest)
    except schema.SchemaError as error:
        raise damaged_file(url, shard["index"], str(error)) from None
    return samples


def first_shards(shards: Sequence[ShardEntry], most_clips: int | None) -> list[ShardEntry]:
    """Return the first shards that together hold `most_clips` clips or more; None, or a larger number, gives all."""
    ends = itertools.accumulate((shard["clips"] for shard in shards), initial=0)
    return [shard for shard, before in zip(shards, ends) if most_clips is None or before < most_clips]


def check_sizes(url: str, shards: Sequence[ShardEntry]) -> None:
    """Check that each shard has the length in the manifest; shards in S3 are verified when they are downloaded.

    Raises:
        DamagedDatasetError: a shard is missing, or has another length.
    """
    for shard in () if storage.is_remote(url) else shards:
        try:
            size = storage.size(storage.join(url, shard["path"]))
        except MissingFileError:
            raise damaged_file(url, shard["path"], "it is missing") from None
        if size != shard["size_bytes"]:
            problem = f"it has {size} bytes, but the manifest says {shard['size_bytes']}"
            raise damaged_file(url, shard["path"], problem)


def read_all_samples(url: str, shards: Sequence[ShardEntry], manifest: Manifest) -> Iterator[list[Sample]]:
    """Yield the samples of each shard, in order, as `read_samples` returns them; from S3, several indexes at once."""
    if not storage.is_remote(url):
        yield from (read_samples(url, shard, manifest) for shard in shards)
        return
    with ThreadPoolExecutor(CONCURRENT_READS) as pool:
        for first in range(0, len(shards), 4 * CONCURRENT_READS):  # not all: they would wait in memory
            some = shards[first : first + 4 * CONCURRENT_READS]
            yield from pool.map(lambda shard: read_samples(url, shard, manifest), some)


def _check_sample(sample: Sample, size_bytes: int, manifest: Manifest) -> None:
    key, values = sample["key"], math.prod(sample["shape"])
    if not values < sample["frames_length"] <= values + MAX_HEADER:
        raise schema.SchemaError(f"gives clip {key} {sample['frames_length']} bytes for {sample['shape']} values")
    if sample["frames_offset"] + sample["frames_length"] > size_bytes:
        raise schema.SchemaError(f"puts clip {key} after the end of its shard, which has {size_bytes} bytes")
    if not sample["fps"] > 0:
        raise schema.SchemaError(f"gives clip {key} {sample['fps']} frames per second")
    for name, names in manifest["vocabulary"].items():
        label = sample["labels"].get(name)
        if not isinstance(label, int) or not 0 <= label < len(names):
            raise schema.SchemaError(f"gives clip {key} no label {name} from the vocabulary")
    for name, kind in manifest.get("factors", {}).items():
        value = sample["labels"].get(name)
        if value is None or (len(value) if isinstance(value, list) else None) != (
            sample["shape"][0] if kind == "frame" else None
        ):
            raise schema.SchemaError(f"gives clip {key} no value of {name} for each {kind}")


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

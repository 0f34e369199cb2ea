"""Reading a shard's index, and the summary of it that a job can keep for any number of shards."""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np

from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from preprocessing.dataset import schema
from preprocessing.dataset.clip_index import ClipIndex
from preprocessing.dataset.digests import Digests, digests
from preprocessing.dataset.errors import HASH_MISMATCH, damaged_file
from preprocessing.dataset.format import (
    COLUMNAR,
    IndexEntry,
    IndexHeader,
    Manifest,
    ManifestHead,
    Sample,
    ShardEntry,
    ShardIndex,
    columns_path,
)
from preprocessing.dataset.shard_file import MAX_HEADER
from preprocessing.dataset.shard_table import ShardTable

S = TypeVar("S")
T = TypeVar("T")

CONCURRENT_READS = 16
"""Small files that are read from S3 at the same time."""
MAX_CHECKED = 10_000
"""Shards up to whose number their lengths are compared when the dataset is opened; of more, when they are read."""


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


def read_index(url: str, entry: IndexEntry | ShardEntry, *, complete: bool = False) -> ShardIndex:
    """Return the index that an entry of the manifest names, of any format.

    Args:
        url: the dataset.
        entry: names the index.
        complete: whether keys that a reader of clips does not need must be there too.

    Raises:
        DamagedDatasetError: the index is missing, its hash differs from the manifest's, or a field is not as the format
            declares it.
    """
    data = _read(url, entry["index"], entry["index_sha256"])
    try:
        content = schema.load(data)
        schema.check(content, IndexHeader, complete=complete)
        header: IndexHeader = content
        if "columns_sha256" not in entry and (header.get("schema_version", 2) < COLUMNAR or header["clips"]):
            schema.check(content, ShardIndex, complete=complete)
            return cast(ShardIndex, content)
    except schema.SchemaError as error:
        raise damaged_file(url, entry["index"], str(error)) from None
    samples = read_columns(url, entry).samples() if "columns_sha256" in entry else []  # else a shard without clips
    return {**header, "samples": samples}


def read_columns(url: str, shard: IndexEntry | ShardEntry, manifest: ManifestHead | None = None) -> ClipIndex:
    """Return the Arrow index of a shard of format 3, read as it is stored, and not through the cache.

    Raises:
        DamagedDatasetError: it is missing, its hash differs from that in the table, or it is not as the format declares
            it, with the labels of the manifest if that is given.
    """
    entry: ShardEntry = shard  # type: ignore[assignment]
    path = columns_path(entry["path"])
    data = _read(url, path, entry["columns_sha256"])
    return ClipIndex(url, path, data, clips=entry["clips"], size_bytes=entry["size_bytes"], manifest=manifest)


def read_header(url: str, entry: IndexEntry | ShardEntry) -> IndexHeader:
    """Return the index that an entry of the manifest names, without its clips. Raise DamagedDatasetError like above."""
    return _parsed(url, entry, IndexHeader)


def list_samples(url: str, entry: IndexEntry | ShardEntry) -> list[Sample]:
    """Return the clips that the JSON index of a shard lists. Raise DamagedDatasetError like above."""
    return _parsed(url, entry, ShardIndex)["samples"]


def _parsed(url: str, entry: IndexEntry | ShardEntry, kind: type[T]) -> T:
    data = _read(url, entry["index"], entry["index_sha256"])
    try:
        return schema.parse(data, kind)
    except schema.SchemaError as error:
        raise damaged_file(url, entry["index"], str(error)) from None


def _read(url: str, path: str, sha256: str) -> bytes:
    try:
        data = schema.read(storage.join(url, path))
    except MissingFileError:
        raise damaged_file(url, path, "it is missing") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise damaged_file(url, path, HASH_MISMATCH)
    return data


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


def first_shards(shards: list[ShardEntry] | ShardTable, most_clips: int | None) -> list[ShardEntry] | ShardTable:
    """Return the first shards that together hold `most_clips` clips or more; None, or a larger number, gives all."""
    if most_clips is None:
        return shards
    ends = np.cumsum(shards.numbers("clips") if isinstance(shards, ShardTable) else [one["clips"] for one in shards])
    return shards[: int(np.searchsorted(ends, most_clips)) + 1 if most_clips > 0 else 0]


def check_sizes(url: str, shards: Sequence[ShardEntry]) -> None:
    """Check that each shard has the length in the manifest; shards in S3 are verified when they are downloaded.

    Raises:
        DamagedDatasetError: a shard is missing, or has another length.
    """
    is_left_out = storage.is_remote(url) or (isinstance(shards, ShardTable) and len(shards) > MAX_CHECKED)
    for shard in () if is_left_out else shards:
        try:
            size = storage.size(storage.join(url, shard["path"]))
        except MissingFileError:
            raise damaged_file(url, shard["path"], "it is missing") from None
        if size != shard["size_bytes"]:
            problem = f"it has {size} bytes, but the manifest says {shard['size_bytes']}"
            raise damaged_file(url, shard["path"], problem)


def read_all_samples(url: str, shards: Sequence[ShardEntry], manifest: Manifest) -> Iterator[list[Sample]]:
    """Yield the samples of each shard, in order, as `read_samples` returns them."""
    return read_each(url, lambda shard: read_samples(url, shard, manifest), shards)


def read_each(url: str, read: Callable[[S], T], shards: Sequence[S]) -> Iterator[T]:
    """Yield the result of `read` for each shard of the dataset at `url`, in order; from S3, several at once."""
    if not storage.is_remote(url):
        yield from map(read, shards)
        return
    with ThreadPoolExecutor(CONCURRENT_READS) as pool:
        for first in range(0, len(shards), 4 * CONCURRENT_READS):  # not all: they would wait in memory
            yield from pool.map(read, shards[first : first + 4 * CONCURRENT_READS])


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

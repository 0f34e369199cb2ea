"""Writing one shard: the clips of its inputs into a tar, then its index, which marks the tar as complete."""

import hashlib
from pathlib import Path

import numpy as np

from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from cluster.storage.scratch import scratch_file
from preprocessing.appearance.descriptors import VERSION as DESCRIPTOR_VERSION
from preprocessing.appearance.descriptors import Descriptor, describe, to_npy, usual
from preprocessing.clip import Clips, Item, Source
from preprocessing.dataset import schema
from preprocessing.dataset.clip_index import ClipIndex, encode_clips
from preprocessing.dataset.errors import DamagedDatasetError
from preprocessing.dataset.format import (
    COLUMNAR,
    Appearance,
    IndexHeader,
    RejectRecord,
    Sample,
    ShardIndex,
    StoredFile,
    appearance_path,
    columns_path,
    encode_json,
)
from preprocessing.dataset.index import ShardSummary, summarize
from preprocessing.dataset.writer import ShardWriter
from preprocessing.sharding.plan import ShardPlan
from preprocessing.sharding.reading import read_item


def write_shard(
    url: str,
    plan_sha256: str,
    shard: ShardPlan,
    source: Source,
    clips: Clips | None = None,
    patience_s: float = 0.0,
) -> ShardSummary:
    """Write a shard and its index, and return the summary of the index.

    Args:
        url: the dataset.
        plan_sha256: identity of the plan, which the index repeats.
        shard: the path, the split and the inputs of the shard.
        source: the source of the inputs.
        clips: returns the clips of an input, in place of `source.clips`.
        patience_s: how long inputs and storage that do not respond are retried, in seconds.

    Raises:
        UserError: an input could not be read although it may be good, or the dataset cannot be written.
    """
    rejects: list[RejectRecord] = []
    descriptors: list[Descriptor] = []
    with scratch_file() as file:
        writer = ShardWriter(file, source)
        for item in shard.items:
            reject = _add_item(writer, descriptors, item, clips or source.clips, patience_s)
            if reject is not None:
                rejects.append(reject)
        contents = writer.close()
        file.flush()
        if contents["clips"]:
            local, remote = Path(f"/dev/fd/{file.fileno()}"), storage.join(url, shard.path)
            storage.retry_while_unreachable(lambda: storage.upload(local, remote), patience_s)
    index: IndexHeader = {
        "schema_version": shard.version,
        "plan_sha256": plan_sha256,
        "shard": shard.path,
        "split": shard.split,
        "sha256": contents["sha256"],
        "size_bytes": contents["size_bytes"],
        "clips": contents["clips"],
        "statistics": contents["statistics"],
        "rejects": rejects,
    }
    samples = contents["samples"]
    complete: ShardIndex = {**index, "samples": samples}
    stored: IndexHeader = index if shard.version >= COLUMNAR else complete
    if samples:
        stored["appearance"] = _write_appearance(url, shard, samples, descriptors, patience_s)
        if shard.version >= COLUMNAR:
            stored["columns"] = _write_columns(url, shard, samples, source, patience_s)
    data = encode_json(stored)
    _write(url, shard.index_path, data, patience_s)
    return summarize({**stored, "samples": samples}, hashlib.sha256(data).hexdigest())


def _write(url: str, path: str, data: bytes, patience_s: float) -> None:
    storage.retry_while_unreachable(lambda: storage.write_bytes(storage.join(url, path), data), patience_s)


def _write_columns(url: str, shard: ShardPlan, samples: list[Sample], source: Source, patience_s: float) -> StoredFile:
    """Write the Arrow index of a shard, and return its entry in the JSON index."""
    data, path = encode_clips(samples, source.vocabulary, source.factors), columns_path(shard.path)
    _write(url, path, data, patience_s)
    return {"path": path, "sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}


def _write_appearance(
    url: str, shard: ShardPlan, samples: list[Sample], descriptors: list[Descriptor], patience_s: float
) -> Appearance:
    """Write what the clips of a shard look like, and return the entry of its index."""
    data, path = to_npy(np.stack(descriptors)), appearance_path(shard.path)
    _write(url, path, data, patience_s)
    name = usual(samples[0]["shape"][-1])
    return {"name": name, "version": DESCRIPTOR_VERSION, "path": path, "sha256": hashlib.sha256(data).hexdigest()}


def _add_item(
    writer: ShardWriter, descriptors: list[Descriptor], item: Item, clips: Clips, patience_s: float
) -> RejectRecord | None:
    """Add the clips of an input; return its record if it is rejected."""
    reading = read_item(clips, item, patience_s)
    while True:
        try:
            clip = next(reading)
            writer.add(clip)
            descriptors.append(describe(usual(clip.frames.shape[-1]), clip.frames))
        except StopIteration as end:
            return None if end.value is None else end.value.record()


def find_finished_shard(url: str, plan_sha256: str, shard: ShardPlan) -> ShardSummary | None:
    """Return the summary of a shard that was written in full, judged by its index and its length; None otherwise."""
    try:
        data = storage.read_bytes(storage.join(url, shard.index_path))
        index = schema.parse(data, IndexHeader, complete=True)
        if index["plan_sha256"] != plan_sha256 or index["shard"] != shard.path:
            return None
        summary = _summary(url, data, index)
        if index["clips"]:
            if "appearance" in index and not storage.exists(storage.join(url, index["appearance"]["path"])):
                return None
            return summary if storage.size(storage.join(url, shard.path)) == index["size_bytes"] else None
        return summary
    except (MissingFileError, schema.SchemaError, DamagedDatasetError):
        return None


def _summary(url: str, data: bytes, index: IndexHeader) -> ShardSummary:
    """Return the summary of a stored index, whose Arrow file must be intact where it has one."""
    sha256 = hashlib.sha256(data).hexdigest()
    if index["schema_version"] < COLUMNAR:
        return summarize(schema.parse(data, ShardIndex, complete=True), sha256)
    if not index["clips"]:
        return summarize({**index, "samples": []}, sha256)
    if "columns" not in index:
        raise schema.SchemaError("has no `columns`")
    file, path = index["columns"], columns_path(index["shard"])
    columns = storage.read_bytes(storage.join(url, path))
    if (file["path"], file["sha256"]) != (path, hashlib.sha256(columns).hexdigest()):
        raise schema.SchemaError("names another file than its `columns`")
    found = ClipIndex(url, path, columns, clips=index["clips"], size_bytes=index["size_bytes"])
    return ShardSummary(index, sha256, keys=found.hashes("key"), identities=np.unique(found.hashes("identity")))

"""The manifest of a finished dataset, made from the plan and the summaries of its shards."""

import hashlib
import platform
from importlib import metadata

from preprocessing.clip import SPLITS, Source
from preprocessing.dataset.disjoint import check_disjoint
from preprocessing.dataset.format import (
    COLUMNAR,
    REJECTS,
    IndexEntry,
    Manifest,
    ShardEntry,
    index_path,
)
from preprocessing.dataset.index import ShardSummary
from preprocessing.dataset.statistics import clip_shape, pixel_moments, total
from preprocessing.sharding.plan import Plan

_LIBRARIES = ("numpy", "pillow", "av")


def make_manifest(url: str, plan: Plan, source: Source, summaries: list[ShardSummary], rejected: bytes) -> Manifest:
    """Return the manifest of a dataset whose shards have the given summaries.

    Args:
        url: the dataset, all of whose shards are written.
        plan: the plan of the dataset.
        source: the source of the clips; it declares their labels.
        summaries: one per shard, in the order of the plan.
        rejected: content of the stored `rejects.jsonl`.

    Raises:
        UserError: an identity is in two splits, a key appears twice, or clips differ in height, width or channels.
    """
    full = [one for one in summaries if one.index["clips"]]
    shards = [_shard_entry(one) for one in full]
    groups, identities = plan.groups(), check_disjoint(url, shards, full)
    inputs = plan.inputs()
    return {
        "schema_version": plan.version,
        "plan_sha256": plan.identity,
        "configuration": plan.configuration,
        "source_sha256": plan.fingerprint,
        "software": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in (*_LIBRARIES, *(("pyarrow",) if plan.version >= COLUMNAR else ()))},
        "vocabulary": source.vocabulary,
        "factors": source.factors,
        "clip_shape": clip_shape(one.index["statistics"] for one in full),
        "splits": {
            split: {
                "shards": sum(shard["split"] == split for shard in shards),
                "clips": sum(shard["clips"] for shard in shards if shard["split"] == split),
                "inputs": inputs[split],
                "rejects": sum(len(one.index["rejects"]) for one in summaries if one.index["split"] == split),
                "groups": groups[split],
                "identities": identities.get(split, 0),
                "size_bytes": sum(shard["size_bytes"] for shard in shards if shard["split"] == split),
                **total((one.index["statistics"] for one in full if one.index["split"] == split), source.vocabulary),
            }
            for split in SPLITS
        },
        # `make_plan` and `check_disjoint` have checked both.
        "disjoint": {"groups_in_two_splits": 0, "identities_in_two_splits": 0},
        "rejects": {"path": REJECTS, "sha256": hashlib.sha256(rejected).hexdigest()},
        "shards": shards,
        # Shards whose inputs were all rejected: an index that says so, and no tar.
        "empty": [_index_entry(one) for one in summaries if not one.index["clips"]],
    }


def _shard_entry(summary: ShardSummary) -> ShardEntry:
    index = summary.index
    entry: ShardEntry = {
        "path": index["shard"],
        "split": index["split"],
        "clips": index["clips"],
        "size_bytes": index["size_bytes"],
        "sha256": index["sha256"],
        "index": index_path(index["shard"]),
        "index_sha256": summary.index_sha256,
    }
    if "columns" in index:
        entry["columns_sha256"], entry["columns_bytes"] = index["columns"]["sha256"], index["columns"]["size_bytes"]
        return entry
    # In this order, and between others, as they always were: the bytes of a manifest must not change.
    moments, counts = pixel_moments(index["statistics"]["pixels"]), index["statistics"]
    return {
        "path": entry["path"], "split": entry["split"], "clips": entry["clips"], "frames": counts["frames"],
        "size_bytes": entry["size_bytes"], "sha256": entry["sha256"], "index": entry["index"],
        "index_sha256": entry["index_sha256"], "pixel_mean": moments["pixel_mean"], "pixel_std": moments["pixel_std"],
    }  # fmt: skip


def _index_entry(summary: ShardSummary) -> IndexEntry:
    return {"index": index_path(summary.index["shard"]), "index_sha256": summary.index_sha256}

"""The manifest of a finished dataset, made from the plan and the summaries of its shards."""

import hashlib
import platform
from importlib import metadata

from cluster.storage import api as storage
from preprocessing.clip import SPLITS, Source
from preprocessing.dataset.disjoint import check_disjoint
from preprocessing.dataset.format import (
    MANIFEST,
    REJECTS,
    VERSION,
    IndexEntry,
    Manifest,
    ShardEntry,
    encode_json,
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
        "schema_version": VERSION,
        "plan_sha256": plan.identity,
        "configuration": plan.configuration,
        "source_sha256": plan.fingerprint,
        "software": {"python": platform.python_version()} | {name: metadata.version(name) for name in _LIBRARIES},
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


def write_manifest(url: str, manifest: Manifest) -> None:
    """Store the manifest, which marks the dataset as complete."""
    storage.write_bytes(storage.join(url, MANIFEST), encode_json(manifest))


def _shard_entry(summary: ShardSummary) -> ShardEntry:
    index = summary.index
    return {
        "path": index["shard"],
        "split": index["split"],
        "clips": index["clips"],
        "frames": index["statistics"]["frames"],
        "size_bytes": index["size_bytes"],
        "sha256": index["sha256"],
        **_index_entry(summary),
        **pixel_moments(index["statistics"]["pixels"]),
    }


def _index_entry(summary: ShardSummary) -> IndexEntry:
    return {"index": index_path(summary.index["shard"]), "index_sha256": summary.index_sha256}

"""The manifest: what a finished dataset holds, written when everything else is there."""

import hashlib
import platform
from collections.abc import Iterable
from importlib import metadata
from typing import Any

from cluster.errors import UserError
from cluster.storage import api as storage
from preprocessing.clip import SPLITS, Source
from preprocessing.dataset.statistics import pixel_moments, total
from preprocessing.sharding import rejects
from preprocessing.sharding.disjoint import check_disjoint
from preprocessing.sharding.plan import FORMAT, Plan, encode, stats_path
from preprocessing.sharding.write_shard import Summary

FILE = "manifest.json"
_LIBRARIES = ("numpy", "pillow", "av")


def make_manifest(url: str, plan: Plan, source: Source, summaries: list[Summary], rejected: bytes) -> dict[str, Any]:
    """The manifest of a dataset whose shards have the given summaries.

    Args:
        summaries: one per shard, in the order of the plan.
        rejected: content of the stored `rejects.jsonl`.

    Raises:
        UserError: an identity is in two splits, a key appears twice, or clips differ in height, width or channels.
    """
    full = [one for one in summaries if one.index["clips"]]
    shards = [_entry(one) for one in full]
    groups, identities = plan.groups(), check_disjoint(url, shards, full)
    inputs = {split: sum(len(shard.items) for shard in plan.shards if shard.split == split) for split in SPLITS}
    return {
        "schema_version": FORMAT,
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
        # Both were checked before this was written.
        "disjoint": {"groups_in_two_splits": 0, "identities_in_two_splits": 0},
        "rejects": {"path": rejects.FILE, "sha256": hashlib.sha256(rejected).hexdigest()},
        "shards": shards,
        # Shards whose inputs were all bad have an index, which says so, and no tar.
        "empty": [_index_entry(one) for one in summaries if not one.index["clips"]],
    }


def write_manifest(url: str, manifest: dict[str, Any]) -> None:
    """Store the manifest: from now on the dataset is complete."""
    storage.write_bytes(storage.join(url, FILE), encode(manifest))


def clip_shape(statistics: Iterable[dict[str, Any]]) -> list[int | None]:
    """[T, H, W, C] of all clips; T is None where clips differ in length."""
    sizes: set[tuple[int, ...]] = set()
    lengths: set[int] = set()
    for one in statistics:
        sizes |= {tuple(size) for size in one["sizes"]}
        lengths |= {int(length) for length in one["lengths"]}
    if len(sizes) != 1:
        raise UserError(f"clips differ in height, width or channels: {sorted(sizes)}")
    return [lengths.pop() if len(lengths) == 1 else None, *sizes.pop()]


def _entry(summary: Summary) -> dict[str, Any]:
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


def _index_entry(summary: Summary) -> dict[str, Any]:
    return {"index": stats_path(summary.index["shard"]), "index_sha256": summary.index_sha256}

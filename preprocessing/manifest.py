"""The manifest: what a finished dataset holds, written when its last shard is there."""

import hashlib
import platform
from collections import Counter
from importlib import metadata
from typing import Any

from cluster import storage
from cluster.errors import UserError
from preprocessing.clip import Source
from preprocessing.plan import FORMAT, SPLITS, Plan, encode, stats_path
from preprocessing.shard_file import Stats

FILE = "manifest.json"
_LIBRARIES = ("numpy", "pillow", "webdataset")


def write_manifest(url: str, plan: Plan, source: Source, indexes: list[Stats]) -> dict[str, Any]:
    """Store the manifest of a dataset whose shards have the given indexes; gives it back.

    Raises:
        UserError: an identity is in two splits, a key appears twice, or clips differ in height, width or channels.
    """
    manifest = make_manifest(plan, source, sorted(indexes, key=lambda stats: str(stats["shard"])))
    storage.write_bytes(storage.join(url, FILE), encode(manifest))
    return manifest


def make_manifest(plan: Plan, source: Source, indexes: list[Stats]) -> dict[str, Any]:
    """The manifest's content."""
    samples = {
        split: [one for stats in indexes if stats["split"] == split for one in stats["samples"]] for split in SPLITS
    }
    check_disjoint(samples)
    every = [one for split in SPLITS for one in samples[split]]
    return {
        "schema_version": FORMAT,
        "plan_sha256": plan.sha256(),
        "configuration": plan.configuration,
        "source_sha256": plan.fingerprint,
        "software": {"python": platform.python_version()} | {name: metadata.version(name) for name in _LIBRARIES},
        "vocabulary": source.vocabulary,
        "factors": source.factors,
        "clip_shape": clip_shape(every),
        "splits": {split: _totals(split, samples[split], indexes, source.vocabulary) for split in SPLITS},
        "shards": [_entry(stats) for stats in indexes],
    }


def check_disjoint(samples: dict[str, list[Stats]]) -> None:
    """UserError if an identity is in two splits or a key appears twice."""
    home: dict[str, str] = {}
    keys: set[str] = set()
    for split, mine in samples.items():
        for one in mine:
            other = home.setdefault(one["identity"], split)
            if other != split:
                raise UserError(f"identity {one['identity']} is in two splits, {split} (clip {one['key']}) and {other}")
            if one["key"] in keys:
                raise UserError(f"clip key {one['key']} appears twice")
            keys.add(one["key"])


def clip_shape(samples: list[Stats]) -> list[int | None]:
    """[T, H, W, C] of all clips; T is None where clips differ in length."""
    sizes = {tuple(one["shape"][1:]) for one in samples}
    if len(sizes) != 1:
        raise UserError(f"clips differ in height, width or channels: {sorted(sizes)}")
    lengths = {one["shape"][0] for one in samples}
    return [lengths.pop() if len(lengths) == 1 else None, *sizes.pop()]


def _totals(split: str, samples: list[Stats], indexes: list[Stats], vocabulary: dict[str, list[str]]) -> dict[str, Any]:
    mine = [stats for stats in indexes if stats["split"] == split]
    counts = {name: Counter(one["labels"][name] for one in samples) for name in vocabulary}
    return {
        "shards": len(mine),
        "clips": len(samples),
        "identities": len({one["identity"] for one in samples}),
        "frames": sum(one["shape"][0] for one in samples),
        "size_bytes": sum(stats["size_bytes"] for stats in mine),
        "label_counts": {name: [counts[name][value] for value in range(len(vocabulary[name]))] for name in vocabulary},
    }


def _entry(stats: Stats) -> dict[str, Any]:
    index = encode(stats)
    return {
        "path": stats["shard"],
        "split": stats["split"],
        "clips": stats["clips"],
        "size_bytes": stats["size_bytes"],
        "sha256": stats["sha256"],
        "index": stats_path(stats["shard"]),
        "index_sha256": hashlib.sha256(index).hexdigest(),
    }

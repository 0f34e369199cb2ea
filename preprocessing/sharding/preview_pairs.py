"""Clips that look alike, for the preview of a dataset: those of one shard, found as a training would find them."""

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from cluster.storage import api as storage
from preprocessing.appearance.agreement import agreement, describe
from preprocessing.appearance.descriptors import from_npy
from preprocessing.appearance.mining import MiningSettings, mine
from preprocessing.appearance.pairs import Video
from preprocessing.dataset.format import Manifest, Sample, ShardEntry
from preprocessing.dataset.index import read_index
from preprocessing.spread import evenly_spread

PAIRS = 8
"""Pairs shown."""


class Alike(NamedTuple):
    """What the preview says about clips that look alike."""

    descriptor: str
    lines: list[str]
    pairs: list[tuple[int, int]]
    """Numbers of the clips in the shard."""


def find_alike(url: str, shard: ShardEntry, manifest: Manifest) -> Alike | None:
    """Return pairs of clips of a shard that look alike; None if its index has no descriptors."""
    index = read_index(url, shard)
    entry = index.get("appearance")
    if entry is None:
        return None
    samples = index["samples"]
    descriptors = from_npy(storage.read_bytes(storage.join(url, entry["path"])), len(samples))
    found = mine(descriptors, _video(samples), MiningSettings())
    labels = {name: np.array([one["labels"][name] for one in samples]) for name in manifest["vocabulary"]}
    shares = agreement(found, [sample["identity"] for sample in samples], labels)
    chosen = found.once[evenly_spread(len(found.once), PAIRS)]
    pairs = list(zip(found.firsts[chosen].tolist(), found.partners[chosen].tolist(), strict=True))
    return Alike(entry["name"], describe(found, shares), pairs)


def _video(samples: list[Sample]) -> Video:
    columns: dict[str, Any] = {
        "sources": [sample["source"] for sample in samples],
        "starts_s": [sample["start_s"] for sample in samples],
    }
    return Video.of(SimpleNamespace(**columns))

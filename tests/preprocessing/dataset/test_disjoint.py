"""A repeated key and an identity in two splits are found, and nothing else."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.errors import UserError
from preprocessing.dataset import disjoint
from preprocessing.dataset.format import encode_json
from preprocessing.dataset.index import ShardSummary, summarize


def sample(key: str, identity: str) -> dict[str, Any]:
    """Return a clip in an index; only its key and its identity matter here."""
    frames = {"shape": [1, 8, 8, 1], "frames_crc32": 0, "frames_length": 192, "frames_offset": 512}
    return {"key": key, "identity": identity, "labels": {}, "source": "a", "start_s": 0.0, "fps": 25.0, **frames}


def dataset(folder: Path, shards: dict[str, list[tuple[str, str]]]) -> tuple[list[dict[str, Any]], list[ShardSummary]]:
    """Store indexes with clips of the given (key, identity); return their entries in a manifest and their summaries."""
    entries, summaries = [], []
    for name, clips in shards.items():
        split = name.partition("/")[0]
        samples = [sample(key, identity) for key, identity in clips]
        index = {
            "shard": f"{name}.tar", "split": split, "sha256": "0" * 64, "size_bytes": 10**6, "clips": len(samples),
            "samples": samples,
        }  # fmt: skip
        data = encode_json(index)
        (folder / split).mkdir(exist_ok=True)
        (folder / f"{name}.json").write_bytes(data)
        summary = summarize(index, hashlib.sha256(data).hexdigest())
        entries.append(
            {"path": f"{name}.tar", "split": split, "index": f"{name}.json", "index_sha256": summary.index_sha256}
        )
        summaries.append(summary)
    return entries, summaries


GOOD = {
    "train/0": [("a-0", "anna"), ("a-1", "anna"), ("b-0", "ben")],
    "train/1": [("b-1", "ben"), ("c-0", "carl")],
    "test/0": [("d-0", "dora"), ("d-1", "dora")],
}


def test_identities_are_counted_across_shards(tmp_path: Path) -> None:
    assert disjoint.check_disjoint(str(tmp_path), *dataset(tmp_path, GOOD)) == {"train": 3, "test": 1}


@pytest.mark.parametrize("shard", ["train/0", "train/1", "test/0"])
def test_a_repeated_key_is_named_with_its_shards(tmp_path: Path, shard: str) -> None:
    bad = GOOD | {shard: [*GOOD[shard], ("b-1", GOOD[shard][0][1])]}
    with pytest.raises(UserError, match=r"clip key b-1 appears twice, in (train/0|train/1).tar and"):
        disjoint.check_disjoint(str(tmp_path), *dataset(tmp_path, bad))


def test_an_identity_in_two_splits_is_named_with_its_clips(tmp_path: Path) -> None:
    bad = GOOD | {"test/0": [*GOOD["test/0"], ("x-0", "ben")]}
    message = r"test/0.tar: clip x-0: identity ben is in two splits, test and train \(clip b-0\)"
    with pytest.raises(UserError, match=message):
        disjoint.check_disjoint(str(tmp_path), *dataset(tmp_path, bad))


def test_equal_digests_of_different_names_are_not_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries, summaries = dataset(tmp_path, GOOD)

    def weak_digests(names: Iterable[str]) -> np.ndarray:
        return np.array([len(name) for name in names], np.uint64)

    clashing = []
    for summary, entry in zip(summaries, entries, strict=True):
        samples = json.loads((tmp_path / entry["index"]).read_text())["samples"]
        keys, identities = (weak_digests([sample[name] for sample in samples]) for name in ("key", "identity"))
        clashing.append(dataclasses.replace(summary, keys=keys, identities=np.unique(identities)))
    monkeypatch.setattr(disjoint, "digests", weak_digests)
    disjoint.check_disjoint(str(tmp_path), entries, clashing)

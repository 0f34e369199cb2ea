"""The manifest says of a dataset exactly what its shards hold, and is the last file to be written."""

import hashlib
import json
import platform
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.errors import UserError
from preprocessing.clip import Clip, Factors, Item, RejectedInputError
from preprocessing.dataset.format import encode_json
from preprocessing.dataset.manifest import write_manifest
from preprocessing.sharding.manifest import make_manifest
from preprocessing.sharding.plan import Plan, ShardPlan
from preprocessing.sharding.rejects import write_rejects
from preprocessing.sharding.write_shard import write_shard


class Grey:
    """Inputs of one or two uniform clips. `bad` gives none, and `cut` is rejected after its first clip."""

    vocabulary = {"action": ["one", "two", "three"]}  # noqa: RUF012
    factors: Factors = {"weight": "clip"}  # noqa: RUF012
    untrusted = False

    def __init__(self, height: int = 4) -> None:
        self.height = height

    def items(self) -> list[Item]:
        return [Item(key, "train" if key < "x" else "test", 1) for key in ("a", "bad", "cut", "x", "y")]

    def fingerprint(self) -> str:
        return "f" * 64

    def clips(self, item: Item) -> Iterator[Clip]:
        if item.key == "bad":
            raise RejectedInputError("no frames")
        for part in range(2 if item.key in ("a", "cut") else 1):
            value, length = 10 * ("a", "cut", "x", "y").index(item.key) + part, 2 if part == 0 else 3
            frames = np.full((length, self.height, 5, 1), value, np.uint8)
            yield Clip(f"{item.key}-{part}", frames, {"action": part, "weight": value / 4}, item.key, "grey", 0.0, 4.0)
            if item.key == "cut":
                raise RejectedInputError("cut off")


def dataset(folder: Path, source: Grey | None = None) -> tuple[Plan, dict[str, Any]]:
    """Write three shards (the second one empty) and return their plan and the manifest."""
    source = source or Grey()
    a, bad, cut, x, y = source.items()
    shards = (
        ShardPlan("train/shard-000000.tar", "train", (a, cut)),
        ShardPlan("train/shard-000001.tar", "train", (replace(bad, group="a"),)),
        ShardPlan("test/shard-000000.tar", "test", (x, y)),
    )
    plan = Plan({"seed": 3}, source.fingerprint(), shards)
    summaries = [write_shard(str(folder), plan.identity, shard, source) for shard in shards]
    rejected = write_rejects(str(folder), (record for one in summaries for record in one.index["rejects"]))
    return plan, dict(make_manifest(str(folder), plan, source, summaries, rejected))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def shard_entry(folder: Path, split: str, **more: Any) -> dict[str, Any]:
    tar, index = folder / split / "shard-000000.tar", folder / split / "shard-000000.json"
    return {
        "path": f"{split}/shard-000000.tar", "split": split, "size_bytes": tar.stat().st_size, "sha256": sha256(tar),
        "index": f"{split}/shard-000000.json", "index_sha256": sha256(index), **more,
    }  # fmt: skip


def test_it_says_what_the_shards_hold(tmp_path: Path) -> None:
    plan, manifest = dataset(tmp_path)
    # a: 2 frames of 0 and 3 of 1; cut: 2 of 10; x: 2 of 20; y: 2 of 30. A frame has 20 pixels.
    train = np.repeat([0, 1, 10], [2, 3, 2])
    assert manifest == {
        "schema_version": 2,
        "plan_sha256": plan.identity,
        "configuration": {"seed": 3},
        "source_sha256": "f" * 64,
        "software": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("numpy", "pillow", "av")},
        },
        "vocabulary": {"action": ["one", "two", "three"]},
        "factors": {"weight": "clip"},
        "clip_shape": [None, 4, 5, 1],
        "splits": {
            "train": {
                "shards": 1, "clips": 3, "inputs": 3, "rejects": 2, "groups": 2, "identities": 2,
                "size_bytes": (tmp_path / "train/shard-000000.tar").stat().st_size,
                "frames": 7, "seconds": 1.75, "clip_lengths": {"2": 2, "3": 1}, "label_counts": {"action": [2, 1, 0]},
                "factors": {"weight": {"min": 0.0, "max": 2.5, "mean": pytest.approx((0 + 0.25 + 2.5) / 3)}},
                "pixel_mean": [round(train.mean(), 4)], "pixel_std": [round(train.std(), 4)],
            },
            "test": {
                "shards": 1, "clips": 2, "inputs": 2, "rejects": 0, "groups": 2, "identities": 2,
                "size_bytes": (tmp_path / "test/shard-000000.tar").stat().st_size,
                "frames": 4, "seconds": 1.0, "clip_lengths": {"2": 2}, "label_counts": {"action": [2, 0, 0]},
                "factors": {"weight": {"min": 5.0, "max": 7.5, "mean": 6.25}},
                "pixel_mean": [25.0], "pixel_std": [5.0],
            },
        },
        "disjoint": {"groups_in_two_splits": 0, "identities_in_two_splits": 0},
        "rejects": {"path": "rejects.jsonl", "sha256": sha256(tmp_path / "rejects.jsonl")},
        "shards": [
            shard_entry(tmp_path, "train", clips=3, frames=7, pixel_mean=[round(train.mean(), 4)],
                        pixel_std=[round(train.std(), 4)]),
            shard_entry(tmp_path, "test", clips=2, frames=4, pixel_mean=[25.0], pixel_std=[5.0]),
        ],
        "empty": [
            {"index": "train/shard-000001.json", "index_sha256": sha256(tmp_path / "train/shard-000001.json")},
        ],
    }  # fmt: skip


def test_its_bytes_keep_the_order_of_the_keys(tmp_path: Path) -> None:
    _, manifest = dataset(tmp_path)
    assert " ".join(manifest) == (
        "schema_version plan_sha256 configuration source_sha256 software vocabulary factors clip_shape splits disjoint "
        "rejects shards empty"
    )
    write_manifest(str(tmp_path), manifest)  # type: ignore[arg-type]
    stored = (tmp_path / "manifest.json").read_bytes()
    assert stored == encode_json(manifest)
    assert json.loads(stored) == manifest


def test_a_split_without_a_shard_is_counted_as_empty(tmp_path: Path) -> None:
    source = Grey()
    item = source.items()[0]
    plan = Plan({}, "", (ShardPlan("train/shard-000000.tar", "train", (item,)),))
    summaries = [write_shard(str(tmp_path), plan.identity, plan.shards[0], source)]
    counted = make_manifest(str(tmp_path), plan, source, summaries, b"")["splits"]["test"]
    assert [counted[name] for name in ("shards", "clips", "inputs", "rejects", "groups", "identities")] == [0] * 6  # type: ignore[literal-required]


def test_clips_of_two_sizes_are_refused(tmp_path: Path) -> None:
    class Growing(Grey):
        def clips(self, item: Item) -> Iterator[Clip]:
            self.height += 1
            return super().clips(item)

    with pytest.raises(UserError, match=r"clips differ in height, width or channels: \[\(5, 5, 1\), \(6, 5, 1\)"):
        dataset(tmp_path, Growing())


def test_an_identity_in_two_splits_is_refused(tmp_path: Path) -> None:
    class One(Grey):
        def clips(self, item: Item) -> Iterator[Clip]:
            return (replace(clip, identity="anna") for clip in super().clips(item))

    with pytest.raises(UserError, match="identity anna is in two splits"):
        dataset(tmp_path, One())

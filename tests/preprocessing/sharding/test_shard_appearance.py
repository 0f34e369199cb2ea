"""What the clips of a shard look like is written with it, in the order of its clips."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.storage import api as storage
from cluster.storage.errors import StorageError
from preprocessing.appearance.descriptors import describe, from_npy
from preprocessing.clip import Clip, Item, RejectedInputError
from preprocessing.dataset import schema
from preprocessing.dataset.format import ShardIndex, appearance_path
from preprocessing.sharding.write_shard import find_finished_shard
from tests.preprocessing.dataset.test_statistics import Waves
from tests.preprocessing.sharding.test_write_shard import PLAN, files, shard_of, write

NPY = "appearance/train/shard-000003.npy"


def coloured(item: Item) -> Iterator[Clip]:
    """Yield clips with patterns of two colours."""
    for clip in Waves().clips(item):
        frames = clip.frames.repeat(2, axis=1).repeat(3, axis=3) & [255, 240, 16]
        yield dataclasses.replace(clip, frames=frames.astype(np.uint8))


def test_paths_of_descriptors_mirror_those_of_shards() -> None:
    assert appearance_path("train/shard-000003.tar") == NPY
    assert appearance_path("test/shard-1234567.tar") == "appearance/test/shard-1234567.npy"


@pytest.mark.parametrize(("clips", "name"), [(Waves().clips, "texture"), (coloured, "colour")])
def test_each_clip_has_its_descriptor_by_the_channels_of_the_frames(tmp_path: Path, clips: Any, name: Any) -> None:
    index = write(tmp_path, shard_of(2, 0, 3), clips)
    data = (tmp_path / NPY).read_bytes()
    assert index["appearance"] == {
        "name": name, "version": 1, "path": NPY, "sha256": hashlib.sha256(data).hexdigest()
    }  # fmt: skip
    expected = [describe(name, clip.frames) for number in (2, 0, 3) for clip in clips(Waves().items()[number])]
    assert np.array_equal(from_npy(data, index["clips"]), np.stack(expected))
    assert len(np.unique(expected, axis=0)) > 4


def test_clips_of_rejected_inputs_have_descriptors_too(tmp_path: Path) -> None:
    def clips(item: Item) -> Iterator[Clip]:
        yield next(Waves().clips(item))
        raise RejectedInputError("cut off", "frame 9")

    index = write(tmp_path, shard_of(1, 2), clips)
    assert len(index["rejects"]) == index["clips"] == 2
    expected = [describe("texture", next(Waves().clips(Waves().items()[number])).frames) for number in (1, 2)]
    assert np.array_equal(from_npy((tmp_path / NPY).read_bytes(), 2), np.stack(expected))


def test_a_shard_without_clips_has_none(tmp_path: Path) -> None:
    def clips(item: Item) -> Iterator[Clip]:
        raise RejectedInputError("no frames", "at the start")
        yield

    index = write(tmp_path, shard_of(1), clips)
    assert "appearance" not in index
    assert files(tmp_path) == {"train/shard-000003.json"}
    assert find_finished_shard(str(tmp_path), PLAN, shard_of(1)) is not None


def test_the_index_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes = storage.write_bytes

    def full(url: str, data: bytes) -> None:
        if url.endswith(".json"):
            raise StorageError("no space left")
        write_bytes(url, data)

    monkeypatch.setattr(storage, "write_bytes", full)
    with pytest.raises(StorageError, match="no space left"):
        write(tmp_path, shard_of(0))
    assert files(tmp_path) == {"train/shard-000003.tar", NPY}
    assert find_finished_shard(str(tmp_path), PLAN, shard_of(0)) is None


def test_a_shard_whose_descriptors_are_missing_is_written_again(tmp_path: Path) -> None:
    first = write(tmp_path, shard_of(0, 2))
    assert find_finished_shard(str(tmp_path), PLAN, shard_of(0, 2)) is not None
    content = (tmp_path / NPY).read_bytes()
    (tmp_path / NPY).unlink()
    assert find_finished_shard(str(tmp_path), PLAN, shard_of(0, 2)) is None
    assert write(tmp_path, shard_of(0, 2)) == first
    assert (tmp_path / NPY).read_bytes() == content


def test_a_shard_of_an_earlier_version_is_complete_without_them(tmp_path: Path) -> None:
    index = write(tmp_path, shard_of(0, 2))
    del index["appearance"]
    (tmp_path / NPY).unlink()
    (tmp_path / "train/shard-000003.json").write_text(json.dumps(index))
    assert find_finished_shard(str(tmp_path), PLAN, shard_of(0, 2)) is not None


def test_only_an_addition_may_lack_in_a_complete_index(tmp_path: Path) -> None:
    index = write(tmp_path, shard_of(0, 2))
    for key in index:
        less = json.dumps({name: value for name, value in index.items() if name != key}).encode()
        if key == "appearance":
            schema.parse(less, ShardIndex, complete=True)
        else:
            with pytest.raises(schema.SchemaError, match=key):
                schema.parse(less, ShardIndex, complete=True)


@pytest.mark.parametrize("appearance", [None, [], "texture", {}, {"name": "texture"}])
@pytest.mark.parametrize("complete", [False, True])
def test_an_addition_that_is_there_is_checked(tmp_path: Path, appearance: Any, complete: bool) -> None:
    index = write(tmp_path, shard_of(0)) | {"appearance": appearance}
    with pytest.raises(schema.SchemaError, match="appearance"):
        schema.parse(json.dumps(index).encode(), ShardIndex, complete=complete)

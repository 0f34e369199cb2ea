"""A shard of format 3 is committed in four steps, its JSON index last, and counts as finished only with all of them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.storage import api as storage
from preprocessing.clip import RejectedInputError
from preprocessing.dataset.digests import digests
from preprocessing.sharding.plan import ShardPlan
from preprocessing.sharding.write_shard import find_finished_shard, write_shard
from tests.preprocessing.dataset import slow_arrow
from tests.preprocessing.dataset.test_statistics import Waves

PLAN = "1" * 64
NAMES = ("train/shard-000003.tar", "appearance/train/shard-000003.npy", "train/shard-000003.arrow",
         "train/shard-000003.json")  # fmt: skip
"""In the order in which they are written."""


def shard_of(*numbers: int, version: int = 3) -> ShardPlan:
    items = tuple(Waves().items()[number] for number in numbers)
    return ShardPlan("train/shard-000003.tar", "train", items, version)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_arrow_index_has_the_clips_and_the_json_index_the_rest(tmp_path: Path) -> None:
    written = write_shard(str(tmp_path / "3"), PLAN, shard_of(2, 1), Waves())
    write_shard(str(tmp_path / "2"), PLAN, shard_of(2, 1, version=2), Waves())
    found, earlier = files(tmp_path / "3"), files(tmp_path / "2")
    assert set(found) == set(NAMES)
    index, before = (json.loads(one["train/shard-000003.json"]) for one in (found, earlier))
    samples, columns = before.pop("samples"), index.pop("columns")
    assert index == before | {"schema_version": 3}
    data = found["train/shard-000003.arrow"]
    path = "train/shard-000003.arrow"
    assert columns == {"path": path, "sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    rows = slow_arrow.read(data)
    assert rows["key"] == [sample["key"] for sample in samples]
    assert rows["frames_crc32"] == [sample["frames_crc32"] for sample in samples]
    assert found["train/shard-000003.tar"] == earlier["train/shard-000003.tar"]
    again = find_finished_shard(str(tmp_path / "3"), PLAN, shard_of(2, 1))
    assert again is not None
    assert (again.index, again.index_sha256) == (written.index, written.index_sha256)
    for name in ("keys", "identities"):
        np.testing.assert_array_equal(getattr(again, name), getattr(written, name))
    np.testing.assert_array_equal(again.keys, digests(rows["key"]))


@pytest.mark.parametrize("stop", range(4))
def test_a_writer_that_is_stopped_before_any_step_leaves_no_finished_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    write_shard(str(tmp_path / "whole"), PLAN, shard_of(0, 3), Waves())
    steps: list[str] = []

    def stopping(write: Any) -> Any:
        def step(*args: Any) -> None:
            if len(steps) == stop:
                raise KeyboardInterrupt
            write(*args)
            steps.append(str(args[1] if write is upload else args[0]))

        return step

    upload, write_bytes = storage.upload, storage.write_bytes
    with monkeypatch.context() as patched:
        patched.setattr(storage, "upload", stopping(upload))
        patched.setattr(storage, "write_bytes", stopping(write_bytes))
        with pytest.raises(KeyboardInterrupt):
            write_shard(str(tmp_path / "data"), PLAN, shard_of(0, 3), Waves())
    assert steps == [f"{tmp_path}/data/{name}" for name in NAMES[:stop]]
    assert find_finished_shard(str(tmp_path / "data"), PLAN, shard_of(0, 3)) is None
    write_shard(str(tmp_path / "data"), PLAN, shard_of(0, 3), Waves())
    assert files(tmp_path / "data") == files(tmp_path / "whole")


@pytest.mark.parametrize("name", NAMES)
def test_a_shard_that_lacks_a_file_or_has_a_damaged_one_is_not_finished(tmp_path: Path, name: str) -> None:
    write_shard(str(tmp_path), PLAN, shard_of(0, 3), Waves())
    path = tmp_path / name
    data = path.read_bytes()
    assert find_finished_shard(str(tmp_path), PLAN, shard_of(0, 3)) is not None
    if "appearance" not in name:  # only its presence is checked; `vdsm verify` compares the hash
        path.write_bytes(data[:-2])
        assert find_finished_shard(str(tmp_path), PLAN, shard_of(0, 3)) is None
    path.unlink()
    assert find_finished_shard(str(tmp_path), PLAN, shard_of(0, 3)) is None


def test_an_intact_arrow_index_of_another_shard_is_not_that_of_this_one(tmp_path: Path) -> None:
    for name, numbers in (("one", (2, 1)), ("other", (1, 2))):
        write_shard(str(tmp_path / name), PLAN, shard_of(*numbers), Waves())
    one, other = (tmp_path / name / "train/shard-000003.arrow" for name in ("one", "other"))
    one.write_bytes(other.read_bytes())
    assert find_finished_shard(str(tmp_path / "one"), PLAN, shard_of(2, 1)) is None


def test_a_shard_without_clips_has_a_json_index_alone(tmp_path: Path) -> None:
    def clips(_: Any) -> Any:
        raise RejectedInputError("it is bad")
        yield

    written = write_shard(str(tmp_path), PLAN, shard_of(0), Waves(), clips)
    assert set(files(tmp_path)) == {"train/shard-000003.json"}
    found = find_finished_shard(str(tmp_path), PLAN, shard_of(0))
    assert found is not None
    assert (found.index, len(found.keys)) == (written.index, 0)

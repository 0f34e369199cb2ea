"""Any clip by its index, exactly as the source made it, or an error that names what is damaged."""

import io
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from cluster.errors import UserError
from cluster.storage import api as storage
from preprocessing.dataset.errors import DamagedDatasetError
from preprocessing.dataset.reader import ClipDataset
from preprocessing.sources.config import FiguresConfig
from preprocessing.sources.figures import FiguresSource


@pytest.fixture
def copy(figures_dataset: Path, tmp_path: Path) -> Path:
    """Return a copy that a test may damage."""
    return Path(shutil.copytree(figures_dataset, tmp_path / "copy"))


def test_every_clip_comes_back_as_the_source_made_it(figures_dataset: Path) -> None:
    source = FiguresSource(FiguresConfig(identities=12, test_fraction=0.25), 0)
    clips = {clip.key: (item.split, clip) for item in source.items() for clip in source.clips(item)}
    read = []
    for split in ("train", "test"):
        dataset = ClipDataset(str(figures_dataset), split)
        assert dataset.vocabulary == source.vocabulary
        for index in np.random.default_rng(0).permutation(len(dataset)).tolist():
            key = dataset.keys[index]
            home, clip = clips[key]
            assert home == split
            np.testing.assert_array_equal(dataset.frames(index), clip.frames)
            assert {name: int(column[index]) for name, column in dataset.labels.items()} == clip.labels
            assert dataset.identities[index] == clip.identity
            assert dataset.clip_frames[index] == len(clip.frames)
            read.append(key)
    assert sorted(read) == sorted(clips)


def test_the_first_shards_alone_are_read_where_so_many_clips_suffice(figures_dataset: Path) -> None:
    everything = ClipDataset(str(figures_dataset), "train")
    sizes = [shard["clips"] for shard in everything.shards]
    assert len(sizes) > 2
    for most, shards in ((1, 1), (sizes[0], 1), (sizes[0] + 1, 2), (sum(sizes), len(sizes)), (10**9, len(sizes))):
        some = ClipDataset(str(figures_dataset), "train", most_clips=most)
        assert len(some.shards) == shards
        assert some.keys == everything.keys[: sum(sizes[:shards])]
        assert np.array_equal(some.frames(len(some) - 1), everything.frames(len(some) - 1))


def test_a_clip_is_the_callers_own(figures_dataset: Path) -> None:
    dataset = ClipDataset(str(figures_dataset), "test")
    first = dataset.frames(0)
    first[:] = 0
    assert dataset.frames(0).any()


def test_it_needs_numpy_alone(figures_dataset: Path, root: Path) -> None:
    code = (
        "import sys; from preprocessing.dataset.reader import ClipDataset; ClipDataset(sys.argv[1], 'test').frames(0); "
        "print(sorted({'ray', 'torch', 'pydantic', 'webdataset', 'boto3', 'yaml', 'rich'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(figures_dataset)]
    assert subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_it_can_be_pickled(figures_dataset: Path) -> None:
    dataset = ClipDataset(str(figures_dataset), "train")
    before = dataset.frames(3)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(dataset)).frames(3), before)


def test_a_tar_cut_on_a_member_boundary_is_noticed_at_once(copy: Path) -> None:
    tar = copy / "train" / "shard-000001.tar"
    with tarfile.open(tar) as complete:
        boundary = complete.getmembers()[4].offset
    os.truncate(tar, boundary)
    with tarfile.open(tar) as short:  # tarfile reports nothing, nor does webdataset
        assert len(short.getmembers()) == 4
    with pytest.raises(DamagedDatasetError, match=rf"shard-000001.tar: it has {boundary} bytes, but the manifest says"):
        ClipDataset(str(copy), "train")


def test_one_changed_bit_is_noticed_when_its_clip_is_read(copy: Path) -> None:
    dataset = ClipDataset(str(copy), "test")
    with tarfile.open(copy / "test" / "shard-000000.tar") as tar:
        offset = tar.getmember(f"{dataset.keys[2]}.frames.npy").offset_data + 5000
    data = bytearray((copy / "test" / "shard-000000.tar").read_bytes())
    data[offset] ^= 1
    (copy / "test" / "shard-000000.tar").write_bytes(data)
    dataset.frames(1)
    dataset.frames(3)
    with pytest.raises(
        DamagedDatasetError, match=rf"shard-000000.tar: the bytes of clip {dataset.keys[2]} were changed"
    ):
        dataset.frames(2)


@pytest.mark.parametrize("name", ["train/shard-000001.tar", "train/shard-000001.json"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(DamagedDatasetError, match=f"{name}: it is missing"):
        ClipDataset(str(copy), "train")


def test_a_changed_index_is_named(copy: Path) -> None:
    index = copy / "test" / "shard-000000.json"
    index.write_text(index.read_text().replace('"action":0', '"action":1', 1))
    with pytest.raises(DamagedDatasetError, match=r"test/shard-000000.json: its SHA-256"):
        ClipDataset(str(copy), "test")


def test_what_is_not_a_dataset_is_reported_clearly(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere/manifest.json is missing; create .*, or let that command finish"):
        ClipDataset(str(tmp_path / "nowhere"), "train")
    with pytest.raises(UserError, match="has no split validation; it has train, test"):
        ClipDataset(str(copy), "validation")
    manifest = copy / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"schema_version":2', '"schema_version":99'))
    with pytest.raises(UserError, match="has format 99, but this version reads 1, 2 and 3"):
        ClipDataset(str(copy), "train")
    manifest.write_text("{}")
    with pytest.raises(UserError, match="is not the manifest of a dataset"):
        ClipDataset(str(copy), "train")


@pytest.fixture
def remote(figures_dataset: Path, s3_bucket: str) -> str:
    """Return the URL of the dataset in a bucket."""
    for name in storage.list_files(str(figures_dataset)):
        storage.upload(figures_dataset / name, f"{s3_bucket}/data/{name}")
    return f"{s3_bucket}/data"


def test_a_bucket_is_read_only_once_through_the_cache(remote: str, figures_dataset: Path, tmp_path: Path) -> None:
    local, dataset = ClipDataset(str(figures_dataset), "train"), ClipDataset(remote, "train", cache=tmp_path)
    again = ClipDataset(remote, "train", cache=tmp_path)
    for index in range(len(dataset)):
        np.testing.assert_array_equal(dataset.frames(index), local.frames(index))
    for name in storage.list_files(remote):
        storage.delete(f"{remote}/{name}")
    np.testing.assert_array_equal(again.frames(5), local.frames(5))


def test_a_cached_shard_that_was_cut_is_fetched_again(remote: str, figures_dataset: Path, tmp_path: Path) -> None:
    before = ClipDataset(remote, "test", cache=tmp_path).frames(0)
    (cached,) = tmp_path.glob("**/*.tar")
    os.truncate(cached, 10_000)
    np.testing.assert_array_equal(ClipDataset(remote, "test", cache=tmp_path).frames(0), before)


def test_a_damaged_object_is_never_used(remote: str, tmp_path: Path) -> None:
    dataset = ClipDataset(remote, "test", cache=tmp_path)
    data = bytearray(storage.read_bytes(f"{remote}/test/shard-000000.tar"))
    data[-1] ^= 1  # in the padding after the clips
    storage.write_bytes(f"{remote}/test/shard-000000.tar", bytes(data))
    with pytest.raises(DamagedDatasetError, match=r"test/shard-000000.tar: its length or SHA-256 does not match"):
        dataset.frames(0)
    assert not list(tmp_path.glob("**/*.tar"))


def test_members_decode_with_plain_numpy(figures_dataset: Path) -> None:
    dataset = ClipDataset(str(figures_dataset), "test")
    with tarfile.open(figures_dataset / "test" / "shard-000000.tar") as tar:
        member = tar.extractfile(f"{dataset.keys[0]}.frames.npy")
        assert member is not None
        frames = np.load(io.BytesIO(member.read()), allow_pickle=False)
    np.testing.assert_array_equal(frames, dataset.frames(0))

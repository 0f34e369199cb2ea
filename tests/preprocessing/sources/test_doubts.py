"""The splits are drawn over the inputs that can give clips, and over no others."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster.errors import UserError
from cluster.storage import api as storage
from preprocessing.clip import Source
from preprocessing.recipe import DataRecipe
from preprocessing.sharding.plan import make_plan
from preprocessing.sources.config import ArraysConfig, FramesConfig, LabelsConfig, SourceConfig
from preprocessing.sources.registry import make_source
from tests.preprocessing.sources.videos_source import paths, source

SEEDS = range(12)


def videos_in(folder: Path, videos: Path, count: int = 6) -> Path:
    folder.mkdir()
    for number in range(count):
        shutil.copy(videos / "anna" / "wave" / "01.mp4", folder / f"v{number}.mp4")
    return folder


def counted(found: Source) -> Counter[str]:
    """Return the number of inputs without doubts in each split."""
    return Counter(item.split for item in found.items() if not item.doubt)


def plan(found: Source) -> None:
    make_plan(DataRecipe(source=SourceConfig(name="videos")), found)


JUNK = {
    "LICENSE": b"Permission is hereby granted" * 9, "README": b"about" * 99, "v1.xyz": bytes(999), "empty.mp4": b"",
    "pointer.mp4": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n",
    "page.mp4": "<!DOCTYPE html><html>é not found</html>".encode() * 30, "tiny.avi": b"RIFF",
}  # fmt: skip


def test_files_that_are_no_videos_do_not_count_in_the_draw(tmp_path: Path, videos: Path) -> None:
    folder = videos_in(tmp_path / "in", videos)
    splits = [[item.split for item in source(folder, seed).items()] for seed in SEEDS]
    for name, content in JUNK.items():
        (folder / name).write_bytes(content)
    for seed, expected in zip(SEEDS, splits, strict=True):
        found = source(folder, seed)
        assert [item.split for item in found.items() if not item.doubt] == expected
        assert {item.path for item in found.items() if item.doubt} == JUNK.keys()
        plan(found)


def test_files_that_are_no_videos_do_not_count_in_s3(videos: Path, s3_bucket: str) -> None:
    for number in range(2):
        storage.upload(videos / "anna" / "wave" / "01.mp4", f"{s3_bucket}/in/v{number}.mp4")
    for name, content in JUNK.items():
        storage.write_bytes(f"{s3_bucket}/in/{name}", content)
    found = source(f"{s3_bucket}/in")
    assert {item.path for item in found.items() if item.doubt} == JUNK.keys()
    assert counted(found) == {"train": 1, "test": 1}


def test_sound_transcripts_and_unfinished_downloads_are_skipped(tmp_path: Path, videos: Path) -> None:
    folder = videos_in(tmp_path / "in", videos, 2)
    for name in ("v1.wav", "v1.align", "v1.mp4.part", "a.lnk", "v1.MP3", "v1.mp4.crdownload"):
        (folder / name).write_bytes(bytes(500))
    assert paths(source(folder)) == ["v0.mp4", "v1.mp4"]


def test_videos_without_a_suffix_count_where_there_are_no_others(tmp_path: Path, videos: Path) -> None:
    folder = videos_in(tmp_path / "in", videos)
    for path in list(folder.iterdir()):
        path.rename(path.with_suffix(""))
    (folder / "README").write_text("about these videos" * 20)
    found = source(folder)
    assert [item.path for item in found.items() if item.doubt] == ["README"]
    assert counted(found) == {"train": 5, "test": 1}


def test_a_folder_of_nothing_but_junk_is_read_all_the_same(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"{number}.mp4").write_text("nothing")
    found = source(tmp_path)
    assert counted(found) == {"train": 5, "test": 1}
    plan(found)


def test_inputs_without_labels_do_not_count_in_the_draw(tmp_path: Path, videos: Path) -> None:
    folder = videos_in(tmp_path / "in", videos, 15)
    people = {"v1.mp4": "anna", "v2.mp4": "anna", "v3.mp4": "bob", "v4.mp4": "bob", "v5.mp4": "carl", "v6.mp4": "carl"}
    sidecar = tmp_path / "rows.csv"
    sidecar.write_text("path,identity\n" + "".join(f"{name},{person}\n" for name, person in people.items()))
    for seed in SEEDS:
        found = source(folder, seed, labels=LabelsConfig(sidecar=str(sidecar)))
        assert counted(found) == {"train": 4, "test": 2}
        assert {item.path for item in found.items() if not item.doubt} == people.keys()
        plan(found)


@pytest.mark.parametrize("rows", ["v1.mp4,anna,\n", "v1.mp4,anna,train\nv2.mp4,bob,train\n"])
def test_a_split_without_labelled_inputs_is_an_error_before_anything_is_read(
    tmp_path: Path, videos: Path, rows: str
) -> None:
    folder = videos_in(tmp_path / "in", videos)
    header = "path,identity,split\n" if "train" in rows else "path,identity\n"
    (tmp_path / "rows.csv").write_text(header + (rows if "train" in rows else rows.replace(",\n", "\n")))
    message = r"no input goes to the test split; of 6 inputs, [45] do not count, for example v0.mp4: it has no row"
    with pytest.raises(UserError, match=message):
        plan(source(folder, labels=LabelsConfig(sidecar=f"{tmp_path}/rows.csv")))


def test_a_video_in_doubt_goes_where_its_identity_goes(tmp_path: Path, videos: Path) -> None:
    folder = videos_in(tmp_path / "in", videos)
    for number in range(6):
        shutil.copy(folder / "v0.mp4", folder / f"v{number}.raw")
    for seed in SEEDS:
        found = source(folder, seed, labels=LabelsConfig(pattern="(?P<identity>v[0-9])"))
        homes = {item.group: item.split for item in found.items() if not item.doubt}
        assert Counter(homes.values()) == {"train": 5, "test": 1}
        assert all(item.split == homes[item.group] for item in found.items())


def test_folders_with_too_few_images_do_not_count(tmp_path: Path) -> None:
    for name, count in {"a": 4, "b": 4, **{f"short{n}": 3 for n in range(8)}, ".": 1}.items():
        (tmp_path / name).mkdir(exist_ok=True)
        for number in range(count):
            Image.new("RGB", (16, 16)).save(tmp_path / name / f"{number}.png")
    config = FramesConfig(clip_frames=4, size=16)
    for seed in SEEDS:
        found = make_source(SourceConfig(name="frames", path=str(tmp_path), frames=config), seed)
        assert counted(found) == {"train": 1, "test": 1}
        doubts = {item.path: item.doubt for item in found.items() if item.doubt}
        assert len(doubts) == 9
        assert doubts["."] == "too few images: 1; a clip needs 4"


def test_arrays_with_too_few_frames_and_damaged_ones_do_not_count(tmp_path: Path) -> None:
    for number in range(8):
        np.save(tmp_path / f"{number}.npy", np.zeros((2 + 2 * (number < 2), 16, 16, 3), np.uint8))
    (tmp_path / "damaged.npy").write_bytes(b"\x93NUMPY")
    config = ArraysConfig(clip_frames=4, size=16)
    for seed in SEEDS:
        found = make_source(SourceConfig(name="arrays", path=str(tmp_path), arrays=config), seed)
        assert counted(found) == {"train": 1, "test": 1}

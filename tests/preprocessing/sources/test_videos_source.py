"""From video files to items and clips: which files are listed, and what is in each clip."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from cluster.errors import UserError
from cluster.storage import api as storage
from preprocessing.clip import RejectedInputError, TransientError
from preprocessing.sources.config import LabelsConfig, SourceConfig, VideosConfig
from preprocessing.sources.registry import make_source, open_serialized_source, serialize_source
from tests.preprocessing.sources.videos_source import EVERY, clips, item, paths, source
from tests.preprocessing.video_files import numbers


def test_a_folder_is_listed_with_every_file_that_may_be_a_video(videos: Path) -> None:
    assert paths(source(videos)) == EVERY
    assert paths(source(f"{videos}/")) == EVERY


def test_a_file_a_pattern_and_a_list(videos: Path, tmp_path: Path) -> None:
    assert paths(source(videos / "anna" / "wave" / "01.mp4")) == ["01.mp4"]
    assert paths(source(f"{videos}/*/wave/*.mp4")) == [name for name in EVERY if "wave" in name]
    assert paths(source(f"{videos}/**/0[!2].mp4")) == [name for name in EVERY if "01" in name]
    assert paths(source(f"{videos}/anna/wal?/01.*")) == ["walk/01.mp4"] or paths(
        source(f"{videos}/anna/wal?/01.*")
    ) == ["01.mp4"]
    listing = tmp_path / "list.txt"
    listing.write_text(f"# two of them\n{videos}/bert/walk/02.mp4\n\n{videos}/anna/wave/01.mp4\n")
    chosen = source(listing)
    assert paths(chosen) == [f"{videos}/anna/wave/01.mp4", f"{videos}/bert/walk/02.mp4"]
    assert len(clips(chosen, f"{videos}/bert/walk/02.mp4")) == 2


def test_a_file_that_the_user_names_is_read_whatever_its_suffix(videos: Path) -> None:
    named = source(videos / "anna" / "thumbnail.JPG")
    with pytest.raises(RejectedInputError):
        list(named.clips(named.items()[0]))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", "nowhere: no such file or folder"),
        ("nowhere/*.mp4", "no such folder"),
        ("anna/*.avi", "no videos found"),
        ("list.txt", "list.txt lists gone.mp4|gone.mp4: No such file"),
    ],
)
def test_a_path_without_videos_is_reported(videos: Path, tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "anna").mkdir()
    (tmp_path / "list.txt").write_text("gone.mp4\n")
    with pytest.raises(UserError, match=message):
        source(tmp_path / path).items()
    with pytest.raises(UserError, match=r"source.path is not set"):
        make_source(SourceConfig(name="videos"), 0)


def test_links_are_followed_but_not_in_circles(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "people").symlink_to(videos)
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "broken.mp4").symlink_to(tmp_path / "gone")
    assert paths(source(tmp_path / "in")) == [f"people/{name}" for name in EVERY]


def test_names_with_any_characters_give_valid_keys(videos: Path, tmp_path: Path) -> None:
    data = (videos / EVERY[0]).read_bytes()
    names = [
        "a b.mp4",
        "a-b.mp4",
        "a_b.mp4",
        "ü💃.mp4",
        "x" * 200 + ".mp4",
        "new\nline.mp4",
        os.fsdecode(b"caf\xe9.mp4"),
    ]
    for name in names:
        (tmp_path / name).write_bytes(data)
    found = source(tmp_path)
    keys = [one.key for one in found.items()]
    assert len(set(keys)) == len(names)
    assert all(key.replace("-", "").replace("_", "").isalnum() and key.isascii() and len(key) < 64 for key in keys)
    for one in found.items():
        assert len(list(found.clips(one))) == 2
        json.dumps(one.path)


def test_clips_are_windows_with_time_and_rate(videos: Path) -> None:
    made = clips(source(videos, stride=4), EVERY[0])
    assert [numbers(clip.frames) for clip in made] == [list(range(start, start + 8)) for start in (0, 4, 8, 12)]
    assert [clip.start_s for clip in made] == [0.0, 0.16, 0.32, 0.48]
    assert {clip.fps for clip in made} == {25.0}
    assert [clip.key.rpartition("-")[2] for clip in made] == ["000000", "000004", "000008", "000012"]
    assert {clip.frames.shape for clip in made} == {(8, 32, 32, 3)}
    slow = clips(source(videos, fps=12.5, channels=1), EVERY[0])
    assert [numbers(clip.frames) for clip in slow] == [list(range(0, 16, 2))]
    assert (slow[0].fps, slow[0].frames.shape) == (12.5, (8, 32, 32, 1))


def test_without_labels_each_video_is_an_identity(videos: Path) -> None:
    found = source(videos)
    assert (found.vocabulary, found.factors) == ({}, {})
    assert {clip.identity for clip in clips(found, EVERY[0])} == {item(found, EVERY[0]).key}
    assert {one.split for one in found.items()} == {"train", "test"}


def test_a_change_of_a_file_changes_only_its_version(videos: Path, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes((videos / EVERY[0]).read_bytes())
    before = {one.path: one.version for one in source(tmp_path).items()}
    os.utime(tmp_path / "b.mp4", ns=(0, 1))
    after = {one.path: one.version for one in source(tmp_path).items()}
    assert after["a.mp4"] == before["a.mp4"]
    assert after["b.mp4"] != before["b.mp4"]


def test_a_deleted_file_is_not_a_bad_video(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    found = source(tmp_path)
    one = found.items()[0]
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(TransientError, match="No such file"):
        list(found.clips(one))


def test_a_worker_makes_the_same_clips_without_listing_inputs(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = LabelsConfig(folders=("identity", "action"))
    found = source(videos, labels=labels)
    one = item(found, EVERY[3])
    config = SourceConfig(name="videos", path=str(videos), videos=VideosConfig(clip_frames=8, size=32, labels=labels))
    again = open_serialized_source(serialize_source(config, 0, found))
    monkeypatch.setattr("preprocessing.sources.listing.list_folder", None)
    assert again.vocabulary == found.vocabulary
    for expected, clip in zip(found.clips(one), again.clips(one), strict=True):
        assert np.array_equal(clip.frames, expected.frames)
        assert (clip.key, clip.labels, clip.identity) == (expected.key, expected.labels, expected.identity)


def test_videos_in_a_bucket_give_the_same_clips(videos: Path, s3_bucket: str) -> None:
    for name in EVERY[:4]:
        storage.upload(videos / name, f"{s3_bucket}/videos/{name}")
    storage.write_bytes(f"{s3_bucket}/videos/notes.txt", b"no video")
    storage.write_bytes(f"{s3_bucket}/list.txt", f"videos/{EVERY[0]}\n{s3_bucket}/videos/{EVERY[1]}\n".encode())
    local, remote = source(videos), source(f"{s3_bucket}/videos")
    assert paths(remote) == EVERY[:4]
    for expected, clip in zip(clips(local, EVERY[1]), clips(remote, EVERY[1]), strict=True):
        assert np.array_equal(clip.frames, expected.frames)
        assert clip.key == expected.key
    assert paths(source(f"{s3_bucket}/videos/**/*1.mp4")) == [name for name in EVERY[:4] if "01" in name]
    assert paths(source(f"{s3_bucket}/videos/{EVERY[0]}")) == ["01.mp4"]
    listed = source(f"{s3_bucket}/list.txt")
    assert len(listed.items()) == 2
    assert all(len(list(listed.clips(one))) == 2 for one in listed.items())
    before = item(remote, EVERY[0]).version
    storage.write_bytes(f"{s3_bucket}/videos/{EVERY[0]}", (videos / EVERY[0]).read_bytes()[:-1] + b"?")
    assert item(source(f"{s3_bucket}/videos"), EVERY[0]).version != before

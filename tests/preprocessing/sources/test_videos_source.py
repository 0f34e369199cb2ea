"""From video files to items and clips: which files are listed, how they are labelled, and what is in each clip."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.errors import UserError
from cluster.storage import api as storage
from preprocessing.clip import Clip, Item, RejectedInputError, TransientError
from preprocessing.clip import Source as AnySource
from preprocessing.sources.config import LabelsConfig, SourceConfig, VideosConfig
from preprocessing.sources.registry import make_source, open_serialized_source, serialize_source
from tests.preprocessing.video_files import numbers, ramp, write_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of anna and bert who wave and walk, twice each, next to files that are not videos."""
    folder = tmp_path_factory.mktemp("videos")
    for person in ("anna", "bert"):
        for action in ("wave", "walk"):
            for take in (1, 2):
                (folder / person / action).mkdir(parents=True, exist_ok=True)
                write_video(folder / person / action / f"{take:02d}.mp4", ramp(20))
    (folder / "README.txt").write_text("about")
    (folder / "anna" / "thumbnail.JPG").write_bytes(b"")
    (folder / ".hidden.mp4").write_bytes(b"")
    return folder


def source(path: Path | str, seed: int = 0, **settings: Any) -> AnySource:
    settings = {"clip_frames": 8, "size": 32} | settings
    return make_source(SourceConfig(name="videos", path=str(path), videos=VideosConfig(**settings)), seed)


def paths(listed: AnySource) -> list[str]:
    return [item.path for item in listed.items()]


def item(found: AnySource, path: str) -> Item:
    return next(one for one in found.items() if one.path == path)


def clips(found: AnySource, path: str) -> list[Clip]:
    return list(found.clips(item(found, path)))


EVERY = [
    f"{person}/{action}/{take}.mp4"
    for person in ("anna", "bert")
    for action in ("walk", "wave")
    for take in ("01", "02")
]


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


def test_folders_give_labels(videos: Path) -> None:
    found = source(videos, labels=LabelsConfig(folders=("identity", "action")))
    assert found.vocabulary == {"action": ["walk", "wave"]}
    assert {one.group for one in found.items()} == {"anna", "bert"}
    assert {(one.path.split("/")[0], one.split) for one in found.items()} in (
        {("anna", "train"), ("bert", "test")},
        {("anna", "test"), ("bert", "train")},
    )
    clip = clips(found, "bert/wave/02.mp4")[0]
    assert (clip.labels, clip.identity) == ({"action": 1}, "bert")
    skipped = source(videos, labels=LabelsConfig(folders=("_", "action")))
    assert len({one.group or one.key for one in skipped.items()}) == 8


def test_a_pattern_gives_labels_and_inputs_that_do_not_match_are_rejected_when_read(videos: Path) -> None:
    pattern = r"^(?P<identity>\w+)/(?P<action>wave)/(?P<take>\d+)"
    found = source(videos, labels=LabelsConfig(pattern=pattern))
    assert found.vocabulary == {"action": ["wave"], "take": ["01", "02"]}
    assert clips(found, "anna/wave/02.mp4")[0].labels == {"action": 0, "take": 1}
    with pytest.raises(RejectedInputError, match="its path does not match"):
        clips(found, "anna/walk/01.mp4")
    with pytest.raises(UserError, match="no input has the required labels"):
        source(videos, labels=LabelsConfig(pattern="(?P<action>[0-9]{9})")).items()


SIDECAR = [
    {"path": "anna/wave/01.mp4", "action": "wave", "age": "31.5", "split": "test", "identity": "A"},
    {"path": "bert/walk/01.mp4", "action": "walk", "age": "7", "split": "train", "identity": "B"},
]


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_sidecar_gives_labels_numbers_and_splits(videos: Path, tmp_path: Path, kind: str) -> None:
    sidecar = tmp_path / f"labels.{kind}"
    if kind == "json":
        sidecar.write_text(json.dumps([row | {"age": float(row["age"])} for row in SIDECAR]))
    else:
        lines = [",".join(SIDECAR[0]), *(",".join(row.values()) for row in SIDECAR)]
        sidecar.write_text("\ufeff" + "\r\n".join(lines) + "\r\n")
    found = source(videos, labels=LabelsConfig(sidecar=str(sidecar), numbers=("age",)))
    assert (found.vocabulary, found.factors) == ({"action": ["walk", "wave"]}, {"age": "clip"})
    clip = clips(found, "anna/wave/01.mp4")[0]
    assert (clip.labels, clip.identity) == ({"action": 1, "age": 31.5}, "A")
    assert item(found, "anna/wave/01.mp4").split == "test"
    assert item(found, "bert/walk/01.mp4").split == "train"
    with pytest.raises(RejectedInputError, match="it has no row"):
        clips(found, "anna/wave/02.mp4")
    before = found.fingerprint()
    sidecar.write_bytes(sidecar.read_bytes().replace(b"31.5", b"32.5"))
    assert source(videos, labels=found._config.labels).fingerprint() != before  # type: ignore[attr-defined]


def test_rows_may_cut_a_video_into_segments_and_crop_it(videos: Path, tmp_path: Path) -> None:
    box = {"left": 8, "top": 0, "width": 20, "height": 20}
    rows = [
        {"path": EVERY[0], "action": "first", "start_s": 0, "end_s": 0.39} | box,
        {"path": EVERY[0], "action": "second", "start_s": 0.4, "end_s": ""} | box,
    ]
    (tmp_path / "labels.json").write_text(json.dumps(rows))
    found = source(videos, clip_frames=4, labels=LabelsConfig(sidecar=str(tmp_path / "labels.json")))
    made = clips(found, EVERY[0])
    assert [(clip.labels["action"], numbers(clip.frames)) for clip in made] == [
        (0, [0, 1, 2, 3]), (0, [4, 5, 6, 7]), (1, [10, 11, 12, 13]), (1, [14, 15, 16, 17]),
    ]  # fmt: skip
    assert len({clip.key for clip in made}) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,action\nx,y\n", "the first line must name the columns, one of them `path`"),
        ("path,action\nx\n", "row 1: it has more or fewer fields"),
        ("path,action\nx,\n", "row 1 \\(x\\): action is empty"),
        ("path,action\n,y\n", "row 1: no path"),
        ("path,action\n", "has no rows"),
        ("path,left,top,width,height\nx,0,0,ten,9\n", "row 1 \\(x\\): width is 'ten'"),
        ("path,left,top,width,height\nx,0,0,,9\n", "a crop box needs left, top, width and height"),
        ("path,start_s,end_s\nx,5,5\n", "end_s is 5, which is not after start_s, 5"),
        ("path,age\nanna/wave/01.mp4,old\n", "age is 'old', which is not a number"),
        ("path,a.b\nx,1\n", "invalid label name 'a.b'"),
    ],
)
def test_an_error_in_a_sidecar_is_reported_with_its_row(videos: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    numbers = ("age",) if "age" in text else ()
    with pytest.raises(UserError, match=message) as raised:
        source(videos, labels=LabelsConfig(sidecar=str(tmp_path / "labels.csv"), numbers=numbers)).items()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LabelsConfig(pattern="(?P<action>"), "is not a regular expression"),
        (LabelsConfig(pattern="[a-z]+"), "has no named group"),
        (LabelsConfig(folders=("identity",), numbers=("age",)), "labels.numbers contains age"),
        (LabelsConfig(pattern="(?P<identity>anna|bert)/(?P<split>wave|walk)"), "into split 'w"),
        (LabelsConfig(folders=("identity", "action"), pattern="0(?P<split>1|2)"), "into split '1'"),
    ],
)
def test_an_error_in_the_label_settings_is_reported(videos: Path, labels: LabelsConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        source(videos, labels=labels).items()


def test_an_identity_labelled_with_two_splits_is_an_error(tmp_path: Path) -> None:
    for name in ("train/anna_1.mp4", "test/anna_2.mp4"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match="anna into two splits, test and train"):
        source(tmp_path, labels=LabelsConfig(folders=("split",), pattern="(?P<identity>anna)")).items()


def test_an_identity_keeps_its_split_when_others_are_added(tmp_path: Path) -> None:
    for number in range(400):
        (tmp_path / f"p{number // 2:03d}_{number % 2}.mp4").write_bytes(b"")
    labels = LabelsConfig(pattern="(?P<identity>p[0-9]+)")
    before = {one.path: (one.split, one.group) for one in source(tmp_path, labels=labels).items()}
    tests = {group for split, group in before.values() if split == "test"}  # 200 identities
    assert not tests & {group for split, group in before.values() if split == "train"}
    assert 22 <= len(tests) <= 58  # 40 of 200 on average, plus or minus three standard deviations
    for number in range(400, 500):
        (tmp_path / f"p{number // 2:03d}_{number % 2}.mp4").write_bytes(b"")
    after = {one.path: (one.split, one.group) for one in source(tmp_path, labels=labels).items()}
    assert all(after[path] == known for path, known in before.items())
    other = {one.path: (one.split, one.group) for one in source(tmp_path, seed=1, labels=labels).items()}
    assert other != after


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

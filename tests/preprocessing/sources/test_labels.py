"""Labels of videos from folders, patterns and sidecars, and the splits that follow from them."""

import json
from pathlib import Path

import numpy as np
import pytest

from cluster.errors import UserError
from preprocessing.clip import RejectedInputError
from preprocessing.sources.config import LabelsConfig
from tests.preprocessing.sources.videos_source import EVERY, clips, item, source
from tests.preprocessing.video_files import numbers, write_video


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


def test_rows_of_a_video_may_crop_it_differently(tmp_path: Path) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    (tmp_path / "videos").mkdir()
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / "videos" / name, [coarse.repeat(10, axis=0).repeat(10, axis=1)] * 16)
    rows = [
        {"path": "a.mp4", "left": 0, "top": 0, "width": 24, "height": 24, "start_s": 0, "end_s": 0.4},
        {"path": "a.mp4", "left": 30, "top": 20, "width": 20, "height": 20, "start_s": 0, "end_s": 0.4},
        {"path": "a.mp4", "left": 30, "top": 0, "width": 40, "height": 40, "start_s": 0.4},
    ]
    each = []
    for number, chosen in enumerate([rows, *([row] for row in rows)]):
        sidecar = tmp_path / f"{number}.json"
        sidecar.write_text(json.dumps([*chosen, {"path": "b.mp4"}]))
        found = source(tmp_path / "videos", clip_frames=4, labels=LabelsConfig(sidecar=str(sidecar)))
        each.append(clips(found, "a.mp4"))
    together, *alone = each
    assert len({clip.key for clip in together}) == len(together) == 5
    pictures = [{clip.frames.tobytes() for clip in one} for one in alone]
    assert not set.intersection(*pictures)
    assert sorted((clip.start_s, clip.frames.tobytes()) for clip in together) == sorted(
        (clip.start_s, clip.frames.tobytes()) for one in alone for clip in one
    )


@pytest.mark.parametrize("name", [" first.mp4", "last .mp4", "folder /one.mp4", "\u00e4 .mp4"])
def test_a_path_may_have_spaces_at_its_ends(tmp_path: Path, name: str) -> None:
    (tmp_path / "videos" / name).parent.mkdir(parents=True)
    (tmp_path / "videos" / name).write_bytes(b"x")
    (tmp_path / "labels.csv").write_text(f"path,action\n{name},wave\n")
    found = source(tmp_path / "videos", labels=LabelsConfig(sidecar=str(tmp_path / "labels.csv")))
    (one,) = found.items()
    assert (one.path, one.doubt.startswith("it has no row")) == (name, False)
    assert found.vocabulary == {"action": ["wave"]}


def test_rows_with_a_reason_in_dropped_are_not_used(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(
        "path,action,start_s,end_s,dropped\n"
        f"{EVERY[0]},wave,0,0.4,\n{EVERY[0]},wave,0.4,0.8,blurred\n{EVERY[1]},,,,still: nothing moves\n"
    )
    found = source(videos, clip_frames=4, labels=LabelsConfig(sidecar=str(tmp_path / "labels.csv")))
    assert found.vocabulary == {"action": ["wave"]}
    assert [clip.start_s for clip in clips(found, EVERY[0])] == pytest.approx([0, 0.16])
    with pytest.raises(RejectedInputError, match=r"dropped by labels\.sidecar: still: nothing moves"):
        clips(found, EVERY[1])


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
        ("path,crop_moves\nx,0:1:1\n", "crop_moves needs left, top, width and height"),
        ("path,left,top,width,height,crop_moves\nx,0,0,9,9,0:1\n", "crop_moves holds '0:1'; write SECONDS:LEFT:TOP"),
        ("path,left,top,width,height,crop_moves\nx,0,0,9,9,0:1:a\n", "crop_moves is 'a', which is not a number"),
        ("path,left,top,width,height,crop_moves\nx,0,0,9,9,1:1:1 1:2:2\n", "crop_moves has 1 s after 1 s"),
        ("path,start_s,end_s\nx,5,5\n", "end_s is 5, which is not after start_s, 5"),
        ("path,age\nanna/wave/01.mp4,old\n", "age is 'old', which is not a number"),
        ("path,a.b\nx,1\n", "invalid label name 'a.b'"),
        ("path,joint\nx,1\n", "invalid label name 'joint'; .* not 'joint' alone"),
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

"""The job of `vdsm prepare`: what it writes, that a rerun and other concurrency give the same bytes, and the errors."""

import csv
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import api as storage
from preprocessing import prepare
from preprocessing.clip import Clip, RejectedInputError
from preprocessing.preparing import job
from preprocessing.sources.labels import DROPPED_BY_USER
from tests.preprocessing.preparing.conftest import options
from tests.preprocessing.sources.videos_source import item, paths, source

WRITTEN = (job.SIDECAR, job.DECISIONS, job.REJECTS, job.PAGE)


def contents(url: str) -> dict[str, bytes]:
    """Return what the job decided."""
    return {name: storage.read_bytes(storage.join(url, name)) for name in WRITTEN}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / job.SIDECAR).open(newline="") as file:
        return list(csv.DictReader(file))


def decisions(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / job.DECISIONS).read_text().splitlines()]


def shard_clips(recordings: Path, sidecar: Path) -> dict[str, list[Clip] | str]:
    """Return the clips of each video that `vdsm shard` makes with a sidecar, or why it rejects the video."""
    found = source(recordings, clip_frames=16, size=32, labels={"sidecar": str(sidecar)})
    made: dict[str, list[Clip] | str] = {}
    for path in paths(found):
        try:
            made[path] = list(found.clips(item(found, path)))
        except RejectedInputError as error:
            made[path] = error.reason
    return made


def test_every_video_has_rows_with_its_labels_and_every_part_that_is_dropped_a_reason(prepared: Path) -> None:
    found = [(row["path"], row["dropped"].partition(":")[0], row["person"], row["action"]) for row in rows(prepared)]
    assert found == [
        ("anna/jump/cut.mp4", "", "anna", "jump"),
        ("anna/jump/cut.mp4", "", "anna", "jump"),
        ("anna/wave/copy.mkv", "", "anna", "wave"),
        ("anna/wave/mirrored.mp4", "", "anna", "wave"),
        ("anna/wave/one.mp4", "", "anna", "wave"),
        ("bert/jump/short.mp4", "too short", "bert", "jump"),
        ("bert/jump/text.avi", "not a video that can be opened", "", ""),
        ("bert/wave/other.mp4", "", "bert", "wave"),
        ("bert/wave/still.mp4", "still", "bert", "wave"),
    ]
    assert [line["path"] for line in decisions(prepared)] == [row["path"] for row in rows(prepared)]
    (reject,) = (json.loads(line) for line in (prepared / job.REJECTS).read_text().splitlines())
    assert (reject["path"], reject["reason"]) == ("bert/jump/text.avi", "not a video that can be opened")


def test_near_duplicates_have_one_identity_and_others_have_their_own(prepared: Path) -> None:
    identity = {row["path"]: row["identity"] for row in rows(prepared)}
    assert identity["anna/wave/copy.mkv"] == identity["anna/wave/mirrored.mp4"] == identity["anna/wave/one.mp4"]
    assert len(set(identity.values())) == len(identity) - 2


def test_the_shards_get_its_crops_and_no_clip_crosses_a_cut(prepared: Path, recordings: Path) -> None:
    made = shard_clips(recordings, prepared / job.SIDECAR)
    clips = made["anna/jump/cut.mp4"]
    assert isinstance(clips, list)
    assert [round(25 * clip.start_s) for clip in clips] == [0, 20]  # 16 of the 20 frames before the cut
    assert len({clip.key for clip in clips}) == 2
    assert isinstance(made["anna/wave/one.mp4"], list)
    assert made["bert/wave/still.mp4"] == f"{DROPPED_BY_USER}still: nothing moves"
    assert made["bert/jump/text.avi"] == f"{DROPPED_BY_USER}not a video that can be opened"


def test_a_part_is_used_once_its_reason_is_deleted(copied: Path, recordings: Path) -> None:
    text = (copied / job.SIDECAR).read_text()
    (copied / job.SIDECAR).write_text(text.replace("still: nothing moves", ""))
    assert isinstance(shard_clips(recordings, copied / job.SIDECAR)["bert/wave/still.mp4"], list)


def test_a_rerun_examines_nothing_and_leaves_the_same_bytes(
    copied: Path, recordings: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(str(copied))
    monkeypatch.setattr(job._Job, "_examine", None)  # it would fail
    prepare.main([*options(recordings), "--out", str(copied)])
    assert contents(str(copied)) == before
    printed = capsys.readouterr().out
    assert "videos: 8, used: 5; parts: 8, kept: 6; cuts: 1" in printed
    assert "near-duplicates: 3 videos in 1 groups" in printed


def test_an_interrupted_job_examines_what_is_missing_and_ends_with_the_same_bytes(
    copied: Path, recordings: Path, local_ray: None
) -> None:
    before = contents(str(copied))
    records = sorted((copied / "parts").iterdir())
    assert len(records) == 8
    for path in records[:3]:
        path.unlink()
    records[3].write_bytes(records[3].read_bytes()[:100])  # as a full disk may leave it
    records[4].write_bytes(b'{"seconds": 1.0, "damage": null, "parts": 3}')
    for name in WRITTEN[:3]:
        (copied / name).unlink()
    kept = {path: path.stat().st_mtime_ns for path in records[5:]}
    prepare.main([*options(recordings), "--out", str(copied), "--shards.concurrency", "1"])
    assert contents(str(copied)) == before
    assert {path: path.stat().st_mtime_ns for path in records[5:]} == kept


@pytest.mark.slow
def test_videos_in_s3_give_the_same_bytes_in_s3(
    prepared: Path, recordings: Path, s3_bucket: str, local_ray: None
) -> None:
    for path in recordings.rglob("*.*"):
        storage.upload(path, storage.join(s3_bucket, "in", path.relative_to(recordings).as_posix()))
    prepare.main([*options(f"{s3_bucket}/in"), "--out", f"{s3_bucket}/out"])
    assert contents(f"{s3_bucket}/out") == contents(str(prepared))


def test_a_changed_video_is_examined_again(
    copied: Path, recordings: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    prepare.main([*options(recordings), "--out", str(copied), "--dry-run"])
    assert "videos: 8, of which 8 were examined before" in capsys.readouterr().out
    video = recordings / "bert" / "wave" / "other.mp4"
    times = video.stat()
    try:
        os.utime(video, (time.time(), time.time()))
        prepare.main([*options(recordings), "--out", str(copied), "--dry-run"])
    finally:
        os.utime(video, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert "videos: 8, of which 7 were examined before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--source.name", "figures"], "vdsm prepare reads videos"),
        ([], "pass --source.path"),
        (["--source.path", "{empty}"], "no videos found"),
        (["--source.path", "{videos}", "--prepare.face-model", "{text}"], "is not a face model that OpenCV can load"),
        (["--source.path", "{videos}", "--prepare.margin", "0.5"], "prepare.margin"),
    ],
)
def test_errors_of_the_user_are_one_line(
    tmp_path: Path, recordings: Path, capsys: pytest.CaptureFixture[str], args: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.onnx").write_text("no model")
    places = {"empty": tmp_path / "empty", "videos": recordings, "text": tmp_path / "model.onnx"}
    with pytest.raises(SystemExit) as end:
        prepare.main([*(arg.format(**places) for arg in args), "--out", str(tmp_path / "out")])
    assert end.value.code == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    assert message in line
    assert not (tmp_path / "out").exists()


def test_a_missing_library_is_named_with_its_extra(
    tmp_path: Path, recordings: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "LIBRARIES", ("cv2", "no_such_library"))
    with pytest.raises(SystemExit):
        prepare.main([*options(recordings), "--out", str(tmp_path)])
    assert "vdsm prepare needs no_such_library; pip install 'vdsm-pipeline[prepare]'" in capsys.readouterr().err

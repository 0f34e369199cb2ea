"""Rejected inputs are recorded, the same in every run; a job stops when too many inputs are rejected."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from cluster.errors import UserError
from preprocessing import shard
from preprocessing.dataset.verify_dataset import verify_dataset
from preprocessing.decoding.sandbox import DecodeProcess
from preprocessing.sharding.reading import read_item
from preprocessing.sharding.rejects import check_any, check_share
from preprocessing.sources.config import SourceConfig, VideosConfig
from preprocessing.sources.registry import make_source, open_serialized_source, serialize_source
from tests.e2e.shard_job import SETTINGS, tree
from tests.preprocessing.video_files import make_videos


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "videos"
    make_videos(folder, 8)
    return folder


def arguments(source: Path, out: Path, *more: str) -> list[str]:
    return ["--source.name", "videos", "--source.path", str(source), *SETTINGS, *more, "--out", str(out)]


def test_bad_videos_cost_no_good_clip_however_many_tasks_run_at_once(
    videos: Path, tmp_path: Path, local_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    trees = []
    for tasks in ("1", "2", "4"):
        out = tmp_path / tasks
        shard.main(arguments(videos, out, "--shards.concurrency", tasks))
        trees.append(tree(str(out)))
        assert f"rejects: {out}/rejects.jsonl" in capsys.readouterr().out
    assert trees[0] == trees[1] == trees[2]
    verify_dataset(str(out))
    records = [json.loads(line) for line in (out / "rejects.jsonl").open()]
    assert sorted(record["path"] for record in records) == ["broken.mkv", "text.avi"]
    manifest = json.loads((out / "manifest.json").read_text())
    kept = {record["path"]: record["clips"] for record in records}
    complete = sum((40 + 4 * number) // 8 for number in range(8))
    assert sum(totals["clips"] for totals in manifest["splits"].values()) == complete + kept["broken.mkv"]
    assert sum(totals["rejects"] for totals in manifest["splits"].values()) == 2


def test_inputs_that_are_all_bad_are_reported_and_listed(
    tmp_path: Path, local_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    for number in range(6):
        (source / f"{number}.mp4").write_text("nothing")
    with pytest.raises(SystemExit) as end:
        shard.main(arguments(source, out))
    assert end.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    reason = f"none of the 6 inputs gave a clip; see {out}/rejects.jsonl for the reasons, and fix the input"
    assert last == f"error: {reason}"
    assert len((out / "rejects.jsonl").read_text().splitlines()) == 6
    assert not (out / "manifest.json").exists()


def test_a_job_with_too_many_rejected_inputs_stops(
    videos: Path, tmp_path: Path, local_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    for number in (6, 7):  # one for each split
        (source / f"good{number}.mp4").symlink_to(videos / f"video{number:02d}.mp4")
    for number in range(30):
        (source / f"{number}.mp4").write_text("nothing" * 2000)
    with pytest.raises(SystemExit) as end:
        shard.main(arguments(source, out, "--shards.concurrency", "1"))
    assert end.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "inputs gave no clip, more than shards.max_rejected_share = 0.75 allows" in last
    assert (out / "rejects.jsonl").read_text().count("not a video that can be opened") >= 20
    capsys.readouterr()
    # The limit does not change the shards, so it may be raised for the same output.
    shard.main(arguments(source, out, "--shards.max-rejected-share", "1"))
    verify_dataset(str(out))
    assert len((out / "rejects.jsonl").read_text().splitlines()) == 30


def test_the_share_counts_once_chance_is_excluded() -> None:
    def stops(empty: int, tried: int, inputs: int, limit: float = 0.5) -> bool:
        try:
            check_share("out", empty=empty, tried=tried, inputs=inputs, limit=limit)
        except UserError:
            return True
        return False

    assert not stops(empty=10, tried=10, inputs=1000)  # ten may be by chance
    assert stops(empty=40, tried=40, inputs=1000)
    assert not stops(empty=52, tried=100, inputs=1000)
    assert stops(empty=520, tried=1000, inputs=1000)
    assert not stops(empty=500, tried=1000, inputs=1000)
    assert not stops(empty=5, tried=5, inputs=5)  # too few for a share
    assert not stops(empty=1000, tried=1000, inputs=1000, limit=1.0)
    assert stops(empty=20, tried=1000, inputs=1000, limit=0.0)


@pytest.mark.slow
def test_a_video_that_needs_more_memory_than_allowed_is_rejected_for_that(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "big.mp4"), "w") as video:
        stream = video.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 4096, 4096, "yuv420p"
        for _ in range(3):
            video.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((4096, 4096, 3), np.uint8), format="rgb24")))
        video.mux(stream.encode())
    config = SourceConfig(name="videos", path=str(tmp_path), videos=VideosConfig(clip_frames=3, size=32))
    source = make_source(config, 0)
    (item,) = source.items()
    for megabytes, clips in ((150, 0), (700, 1)):
        serialized = serialize_source(config, 0, source)
        decoder = DecodeProcess(open_serialized_source, serialized, cpu_seconds=60, memory_mb=megabytes)
        reading, given = read_item(decoder.clips, item, 0), 0
        while True:
            try:
                next(reading)
                given += 1
            except StopIteration as end:
                reject = end.value
                break
        decoder.close()
        assert given == clips
        assert reject is None if clips else reject.reason == "decoding needs more than 150 MB of memory"


def test_a_split_without_a_clip_is_an_error() -> None:
    def one(split: str, clips: int) -> Any:
        return SimpleNamespace(index={"split": split, "clips": clips})

    inputs = {"train": 5, "test": 2}
    check_any("out", [one("train", 1), one("test", 0), one("test", 1)], inputs)
    with pytest.raises(UserError, match=r"none of the 2 inputs in the test split gave a clip; see out/rejects.jsonl"):
        check_any("out", [one("train", 1), one("test", 0)], inputs)
    with pytest.raises(UserError, match=r"none of the 7 inputs gave a clip"):
        check_any("out", [one("train", 0), one("test", 0)], inputs)

"""Parquet files with videos, as the Hub has them, give the clips of the videos themselves; bad files give one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.errors import UserError
from cluster.storage import api as storage
from preprocessing.clip import Clip, Item, RejectedInputError
from preprocessing.recipe import ShardsConfig
from preprocessing.sharding.tasks import make_decoder
from preprocessing.sources.config import SourceConfig
from preprocessing.sources.registry import make_source, serialize_source
from tests.preprocessing.video_files import ramp, write_video

pyarrow = pytest.importorskip("pyarrow", reason="pip install 'vdsm-pipeline[parquet]'")
parquet = pytest.importorskip("pyarrow.parquet")

CLASSES = {
    "info": {"features": {"label": {"names": ["wave", "walk"], "_type": "ClassLabel"}, "video": {"_type": "Video"}}}
}
LABELS = ("identity=subject", "action=label")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    path = tmp_path_factory.mktemp("videos") / "video.mp4"
    found = []
    for length in (8, 9, 10, 11):
        write_video(path, ramp(length))
        found.append(path.read_bytes())
    return found


def config(path: object, **settings: Any) -> SourceConfig:
    chosen = {"size": 32, "clip_frames": 4, "label_columns": LABELS} | settings
    return SourceConfig.model_validate({"name": "huggingface", "path": str(path), "huggingface": chosen})


def made(path: object, **settings: Any) -> tuple[Any, list[tuple[Item, list[Clip]]]]:
    """Return the source, and the clips of each item, decoded as a sharding task does."""
    chosen = config(path, **settings)
    source = make_source(chosen, 0)
    items = source.items()
    decoder = make_decoder(source, serialize_source(chosen, 0, source), ShardsConfig())
    try:
        return source, [(item, list(decoder.clips(item))) for item in items]
    finally:
        decoder.close()


def write(path: Path, videos: list[Any], subjects: Any = ("anna", "bert", "anna", "carl"), labels: Any = (0, 1, 1, 0),
          metadata: bytes | None = None) -> Path:  # fmt: skip
    rows = [{"bytes": one, "path": None} if isinstance(one, bytes) else one for one in videos]
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table = pyarrow.table({"video": pyarrow.array(rows, kind), "subject": list(subjects), "label": list(labels)})
    stated = json.dumps(CLASSES).encode() if metadata is None else metadata
    path.parent.mkdir(exist_ok=True, parents=True)
    parquet.write_table(table.replace_schema_metadata({b"huggingface": stated}), path, row_group_size=3)
    return path


def test_rows_give_the_clips_of_their_videos_with_the_names_of_their_classes(
    videos: list[bytes], tmp_path: Path
) -> None:
    write(tmp_path / "set" / "data" / "train-00000-of-00001.parquet", videos)
    source, found = made(tmp_path / "set")
    assert source.vocabulary == {"action": ["walk", "wave"]}
    assert [item.group for item, _ in found] == ["anna", "bert", "anna", "carl"]
    assert [len(clips) for _, clips in found] == [2, 2, 2, 2]
    (tmp_path / "plain").mkdir()
    for number, data in enumerate(videos):
        (tmp_path / "plain" / f"{number}.mp4").write_bytes(data)
    plain = make_source(
        SourceConfig.model_validate(
            {"name": "videos", "path": str(tmp_path / "plain"), "videos": {"size": 32, "clip_frames": 4}}
        ),
        0,
    )
    for (_, clips), item, action in zip(found, plain.items(), (1, 0, 0, 1), strict=True):
        for clip, expected in zip(clips, plain.clips(item), strict=True):
            assert np.array_equal(clip.frames, expected.frames)
            assert (clip.labels["action"], clip.fps, clip.start_s) == (action, expected.fps, expected.start_s)


def test_splits_are_those_of_the_files_where_asked(videos: list[bytes], tmp_path: Path) -> None:
    write(tmp_path / "train-0.parquet", videos[:2], ("anna", "bert"), (0, 1))
    write(tmp_path / "test-0.parquet", videos[2:], ("carl", "dora"), (0, 1))
    items = make_source(config(tmp_path, splits="file"), 0).items()
    assert {item.group: item.split for item in items} == {
        "anna": "train",
        "bert": "train",
        "carl": "test",
        "dora": "test",
    }


@pytest.mark.s3
def test_a_folder_in_s3_gives_the_same_clips(videos: list[bytes], tmp_path: Path, s3_bucket: str) -> None:
    storage.upload(write(tmp_path / "set" / "a.parquet", videos), f"{s3_bucket}/set/a.parquet")
    here, there = made(tmp_path / "set")[1], made(f"{s3_bucket}/set")[1]
    assert [clip.key for _, clips in here for clip in clips] == [clip.key for _, clips in there for clip in clips]


@pytest.mark.parametrize(
    ("settings", "change", "message"),
    [
        ({"label_columns": ("action=nothing",)}, {}, "has no column nothing; it has video, subject, label"),
        ({}, {"labels": (0, 1, 2, 0)}, "column label has 2, but there are 2 classes"),
        ({}, {"subjects": ("a", "b", None, "c")}, "column subject has a NoneType; labels are text or numbers"),
        ({}, {"subjects": ("a", "b", "x" * 1001, "c")}, "a value of column subject has more than 1000 characters"),
    ],
)
def test_labels_that_cannot_be_used_are_named(
    videos: list[bytes], tmp_path: Path, settings: Any, change: Any, message: str
) -> None:
    write(tmp_path / "a.parquet", videos, **change)
    with pytest.raises(UserError, match=message):
        make_source(config(tmp_path, **settings), 0).items()


@pytest.mark.parametrize("metadata", [b"{", b"[1]", b'{"info": 3}', b"[" * 100_000])
def test_hostile_metadata_only_loses_the_names_of_classes(videos: list[bytes], tmp_path: Path, metadata: bytes) -> None:
    write(tmp_path / "a.parquet", videos, metadata=metadata)
    assert make_source(config(tmp_path), 0).vocabulary == {"action": ["0", "1"]}


def test_rows_without_a_video_are_rejected_and_no_file_that_they_name_is_opened(
    videos: list[bytes], tmp_path: Path
) -> None:
    rows = [videos[0], {"bytes": None, "path": "/etc/passwd"}, {"bytes": None, "path": None}, b"no video"]
    write(tmp_path / "a.parquet", rows)
    source = make_source(config(tmp_path), 0)
    good, *bad = source.items()
    assert len(list(source.clips(good))) == 2
    reasons = ("path of a video, not its bytes", "its row cannot be read", "not a video that can be opened")
    for item, reason in zip(bad, reasons, strict=True):
        with pytest.raises(RejectedInputError, match=reason):
            list(source.clips(item))


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"PAR1" + b"\xff" * 64 + b"PAR1"])
def test_a_damaged_file_is_refused_in_one_line(
    videos: list[bytes], tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = write(tmp_path / "a.parquet", videos)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"cannot be read as Parquet \(") as refused:
        make_source(config(tmp_path), 0).items()
    assert "\n" not in str(refused.value)


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no .parquet file with rows found"):
        make_source(config(tmp_path), 0).items()
    for name in ("hf://only-one-part", "hf://a/b/c"):
        with pytest.raises(UserError, match="is no data set of the Hub; give hf://ORG/NAME"):
            make_source(config(name), 0).items()
    monkeypatch.setattr("cluster.extras.importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs pyarrow, which is not installed; pip install 'vdsm-pipeline\[data\]'"):
        make_source(config(tmp_path), 0).items()

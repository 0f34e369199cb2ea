"""Records of rejected inputs are the same in every run and tell nothing about the machine."""

import json
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster.storage import api as storage
from preprocessing.clip import Clip, Item, RejectedInputError
from preprocessing.sharding.reading import read_item
from preprocessing.sharding.rejects import Reject
from preprocessing.sources.config import FramesConfig, SourceConfig
from preprocessing.sources.registry import make_source
from tests.preprocessing.dataset.memory_source import write_dataset


def record(reading: Generator[Clip, None, Reject | None]) -> Reject:
    """Read an input that gives no clip, and return its record."""
    with pytest.raises(StopIteration) as end:
        next(reading)
    found = end.value.value
    assert isinstance(found, Reject)
    return found


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("no image: <_io.Reader name='/tmp0/tmpk2x_9abc/input'>", "no image: <_io.Reader name='input'>"),
        ("<preprocessing.X object at 0x7fb3619ec4c0>", "<preprocessing.X object at 0x>"),
        ("/home0/me/videos/a.mp4: broken", "a.mp4: broken"),
        ("at tmpk2x_9abc", "at tmp"),
        ("after frame 3, 0.12 s; 12/25 or a/b", "after frame 3, 0.12 s; 12/25 or a/b"),
        ("0x2A is no tag", "0x2A is no tag"),
    ],
)  # fmt: skip
def test_folders_and_what_is_random_are_left_out(message: str, expected: str) -> None:
    def clips(item: Item) -> Iterator[Clip]:
        raise RejectedInputError("an image cannot be decoded", message)

    assert record(read_item(clips, Item("k", "train", 1, path="a.mp4"), 0)).where == expected


def test_broken_images_give_the_same_records_from_a_folder_its_copy_and_s3(tmp_path: Path, s3_bucket: str) -> None:
    folders = [tmp_path / "first", tmp_path / "a copy"]
    for folder in folders:
        for name in ("a", "b", "bad", "cut"):
            (folder / name).mkdir(parents=True)
            for number in range(2):
                Image.fromarray(np.full((16, 16, 3), number, np.uint8)).save(folder / name / f"{number}.png")
        (folder / "bad" / "1.png").write_bytes(b"no image" * 50)
        (folder / "cut" / "1.png").write_bytes((folder / "cut" / "1.png").read_bytes()[:60])
    for path in folders[0].rglob("*.png"):
        storage.upload(path, f"{s3_bucket}/in/{path.relative_to(folders[0])}")
    records = []
    for number, path in enumerate([*map(str, folders), f"{s3_bucket}/in"]):
        source = make_source(SourceConfig(name="frames", path=path, frames=FramesConfig(clip_frames=2, size=16)), 0)
        write_dataset(tmp_path / f"out{number}", source)
        records.append((tmp_path / f"out{number}" / "rejects.jsonl").read_bytes())
    assert records[0] == records[1] == records[2]
    wheres = {json.loads(line)["path"]: json.loads(line)["where"] for line in records[0].splitlines()}
    assert wheres["bad"] == "1.png; it is not an image of a known kind"
    assert wheres.keys() == {"bad", "cut"}

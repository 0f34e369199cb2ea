"""Videos of odd sizes and lengths are examined or rejected one by one, whatever their frames hold."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from preprocessing.preparing.config import PrepareConfig, PrepareRecipe
from preprocessing.preparing.examine import Examination
from preprocessing.preparing.scan import ScanSource
from preprocessing.preparing.tasks import examine_item
from preprocessing.sources.config import VideosConfig
from tests.preprocessing.preparing.scenes import waving, write


def noise(count: int, height: int, width: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


@pytest.mark.parametrize("detector", ["auto", "people"])
@pytest.mark.parametrize(
    ("count", "height", "width"), [(20, 16, 16), (1, 64, 64), (2, 64, 64), (20, 16, 640), (20, 400, 16)]
)
def test_odd_sizes_and_lengths_are_examined(tmp_path: Path, count: int, height: int, width: int, detector: str) -> None:
    path = write(tmp_path / "odd.mp4", noise(count, height, width))
    source = ScanSource(str(path), VideosConfig(), 640)
    (item,) = source.inputs()
    recipe = PrepareRecipe.model_validate({"prepare": {"detector": detector, "min_size": 8}})
    record = examine_item(item, [(0.0, None, None)], recipe, source.clips)
    assert record["damage"] is None
    assert record["frames"] == count
    for part in record["parts"]:
        if part.get("box"):
            left, top, wide, high = part["box"]
            assert 0 <= left <= left + wide <= width
            assert 0 <= top <= top + high <= height


def test_a_video_that_cannot_be_examined_is_recorded_and_does_not_stop_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ScanSource(str(write(tmp_path / "video.mp4", waving(4))), VideosConfig(), PrepareConfig().analysis_size)
    (item,) = source.inputs()

    def fail(*_: object) -> None:
        raise cv2.error("an assertion of OpenCV")

    monkeypatch.setattr(Examination, "add", fail)
    record = examine_item(item, [(0.0, None, None)], PrepareRecipe(), source.clips)
    assert record["damage"] == {"reason": "examination failed with error", "where": "an assertion of OpenCV"}

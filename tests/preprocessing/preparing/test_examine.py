"""What is found in one video: where a crop lies, where shots end, what is dropped and why."""

from pathlib import Path

import numpy as np
import pytest

from preprocessing.decoding.transform import Crop
from preprocessing.preparing.boxes import Box, iou, square_around
from tests.preprocessing.preparing.scenes import (
    HEIGHT,
    WAVER,
    WIDTH,
    background,
    examine,
    standing,
    walking,
    waving,
    write,
)

pytestmark = pytest.mark.slow


def box_of(part: dict[str, object]) -> Box:
    left, top, width, height = part["box"]  # type: ignore[misc]
    return left, top, width, height


@pytest.mark.parametrize("noise", [0.0, 4.0])
def test_the_crop_is_a_square_around_the_whole_person_with_the_arm_at_its_furthest(
    tmp_path: Path, noise: float
) -> None:
    record = examine(write(tmp_path / "wave.mp4", waving(noise=noise)))
    (part,) = record["parts"]
    assert (part["kept"], part["kind"], part["camera"]) == (True, "motion", "still")
    assert part["box"][2] == part["box"][3]
    assert iou(box_of(part), square_around(WAVER, 1.2, WIDTH, HEIGHT)) > 0.8


def test_boxes_are_in_pixels_of_the_video_however_small_the_examined_frames_are(tmp_path: Path) -> None:
    video = write(tmp_path / "wave.mp4", waving())
    (large,), (small,) = (examine(video, analysis_size=size)["parts"] for size in (640, 200))
    assert iou(box_of(large), box_of(small)) > 0.7


def test_a_rotated_video_is_examined_upright(tmp_path: Path) -> None:
    lying = [np.ascontiguousarray(np.rot90(frame)) for frame in waving()]
    record = examine(write(tmp_path / "wave.mp4", lying, rotation=-90))
    assert (record["width"], record["height"]) == (WIDTH, HEIGHT)
    assert iou(box_of(record["parts"][0]), square_around(WAVER, 1.2, WIDTH, HEIGHT)) > 0.7


def test_a_shot_ends_between_the_frames_of_its_cut(tmp_path: Path) -> None:
    frames = [*waving(30, seed=1), *waving(33, seed=2), *waving(8, seed=3)]
    record = examine(write(tmp_path / "cuts.mp4", frames))
    assert record["cuts"] == pytest.approx([29.5 / 25, 62.5 / 25])
    parts = record["parts"]
    assert [(part["start_s"], part["end_s"]) for part in parts] == [
        (0.0, pytest.approx(1.18)),
        (pytest.approx(1.18), pytest.approx(2.5)),
        (pytest.approx(2.5), pytest.approx(2.82)),
    ]
    assert [part["frames"] for part in parts] == [30, 33, 8]
    assert [part["reason"] for part in parts] == ["", "", "too short"]


def test_flashes_and_noise_are_no_cuts(tmp_path: Path) -> None:
    frames = waving(40, noise=4.0)
    assert examine(write(tmp_path / "noisy.mp4", frames))["cuts"] == []


@pytest.mark.parametrize(
    ("settings", "frames", "reason"),
    [
        ({}, standing(), "still"),
        ({"still": 200.0}, waving(), "still"),
        ({"min_size": 200}, waving(), "too small"),
        ({"min_sharpness": 1e6}, waving(), "blurred"),
        ({"detector": "faces"}, waving(), "no face"),
        ({"detector": "people"}, standing(), "no person"),
    ],
)
def test_what_is_dropped_has_its_reason(
    tmp_path: Path, settings: dict[str, object], frames: list[object], reason: str
) -> None:
    (part,) = examine(write(tmp_path / "video.mp4", frames), **settings)["parts"]  # type: ignore[arg-type]
    assert (part["kept"], part["reason"]) == (False, reason)


def test_somebody_who_walks_through_the_picture_has_one_crop_for_each_piece_of_the_way(tmp_path: Path) -> None:
    parts = examine(write(tmp_path / "walk.mp4", walking()), min_length_s=None)["parts"]
    kept = [part for part in parts if part.get("box")]
    assert len(kept) >= 2
    assert all(part["box"][2] < 200 for part in kept)
    assert [part["box"][0] for part in kept] == sorted(part["box"][0] for part in kept)
    assert all(one["end_s"] <= other["start_s"] + 0.11 for one, other in zip(kept, kept[1:]))  # noqa: RUF007


def test_a_segment_and_a_crop_box_of_the_labels_are_kept(tmp_path: Path) -> None:
    video = write(tmp_path / "wave.mp4", waving(60))
    segments = [(0.2, 1.0, Crop(100.0, 60.0, 90.0, 80.0)), (1.2, None, None)]
    parts = examine(video, segments=segments)["parts"]
    assert [(part["kind"], part["start_s"]) for part in parts] == [
        ("given", pytest.approx(0.2)),
        ("motion", pytest.approx(1.2)),
    ]
    assert parts[0]["end_s"] == pytest.approx(1.0)
    assert parts[0]["box"] == pytest.approx([100, 60, 90, 80], abs=1)


def test_a_long_shot_is_divided_into_parts(tmp_path: Path) -> None:
    parts = examine(write(tmp_path / "long.mp4", waving(96), fps=10), max_length_s=4.0)["parts"]
    assert [(part["start_s"], part["end_s"]) for part in parts] == [(0.0, 3.95), (3.95, pytest.approx(9.55))]


def test_a_shaking_camera_does_not_hide_who_moves(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    wide = [np.pad(frame, ((8, 8), (8, 8), (0, 0)), mode="edge") for frame in waving()]
    shaken = [frame[y : y + HEIGHT, x : x + WIDTH] for frame in wide for x, y in [rng.integers(4, 13, 2)]]
    (part, *_) = examine(write(tmp_path / "shaky.mp4", [np.ascontiguousarray(frame) for frame in shaken]))["parts"]
    assert part["camera"] == "shaky"
    assert iou(box_of(part), square_around(WAVER, 1.2, WIDTH, HEIGHT)) > 0.5


def test_hashes_of_flat_frames_are_left_out(tmp_path: Path) -> None:
    assert examine(write(tmp_path / "grey.mp4", [np.full((HEIGHT, WIDTH, 3), 90, np.uint8)] * 20))["hashes"] == []
    assert len(examine(write(tmp_path / "texture.mp4", [background(1)] * 20))["hashes"]) == 2

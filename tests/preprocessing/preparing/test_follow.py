"""Crops that move: with somebody who crosses the picture, with a camera that shakes, and as a sidecar says."""

from pathlib import Path
from typing import Any

import cv2
import imageio.v3 as imageio
import numpy as np
import pytest

from preprocessing.clip import Clip
from preprocessing.decoding.transform import Crop
from preprocessing.preparing.decisions import Video, decide
from preprocessing.preparing.page import make_page
from preprocessing.preparing.tracks import Track, corners_of
from preprocessing.sources.config import LabelsConfig, SourceConfig
from preprocessing.sources.labels import InputPart
from preprocessing.sources.registry import make_source
from tests.preprocessing.preparing.scenes import HEIGHT, WIDTH, Rgb, background, examine, walking, waving, write
from tests.preprocessing.sources.videos_source import clips, source

pytestmark = pytest.mark.slow

FPS = 25


def crop_of(part: dict[str, Any]) -> Crop:
    return Crop(*part["box"], tuple((time, left, top) for time, left, top in part["moves"]))


def shaken(frames: list[Rgb]) -> tuple[list[Rgb], list[tuple[float, float]]]:
    """Return frames as a hand holds the camera, and how far each is displaced from the first, in pixels.

    They get some texture: where there is nothing to follow, nobody can tell how the camera moved.
    """
    texture = np.random.default_rng(0).integers(-40, 40, (HEIGHT // 6, WIDTH // 6)).astype(np.float32)
    fine = cv2.resize(texture, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)[..., None]
    frames = [np.clip(frame + fine, 0, 255).astype(np.uint8) for frame in frames]
    away = [(4 * np.sin(n / 3), 3 * np.cos(n / 4) - 3) for n in range(len(frames))]
    return [
        np.asarray(
            cv2.warpAffine(frame, np.array([[1, 0, x], [0, 1, y]]), (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT),
            np.uint8,
        )
        for frame, (x, y) in zip(frames, away, strict=True)
    ], away


def dark_column(frame: Rgb) -> float:
    """Return the mean column of the darkest pixels, as a share of the width: where the walker is."""
    return float(np.mean(np.nonzero(frame.mean(axis=2) < 45)[1])) / frame.shape[1]


def test_somebody_who_crosses_the_picture_has_one_crop_that_keeps_them_in_its_middle(tmp_path: Path) -> None:
    (part,) = examine(write(tmp_path / "walk.mp4", walking()), follow=True)["parts"]
    assert (part["kept"], part["frames"], part["box"][2]) == (True, 40, part["box"][3])
    assert part["box"][2] < 100  # of somebody 70 pixels tall
    crop = crop_of(part)
    for number in range(8, 32):  # not at the border of the picture
        here = crop.at(number / FPS)
        assert here.left + here.width / 2 == pytest.approx(20 + 7 * number, abs=6)
        assert here.top <= 100
        assert here.top + here.height >= 170
    assert all(0 <= left <= WIDTH - crop.width for _, left, _ in crop.moves)


def test_two_who_walk_one_behind_the_other_have_a_crop_each(tmp_path: Path) -> None:
    frames = []
    for number in range(40):
        frame = background(0)
        for start in (10, 80):  # most of the way of one is also that of the other, at another time
            left = start + 5 * number
            cv2.rectangle(frame, (left, 100), (left + 20, 160), (20, 20, 30), -1)
        frames.append(frame)
    parts = examine(write(tmp_path / "two.mp4", frames), follow=True)["parts"]
    assert [part["kept"] for part in parts] == [True, True]
    behind, ahead = sorted(map(crop_of, parts), key=lambda crop: crop.at(0.8).left)
    assert ahead.at(0.8).left - behind.at(0.8).left == pytest.approx(70, abs=8)


def test_the_way_of_a_track_is_smooth_and_holds_nearly_all_of_it() -> None:
    rng = np.random.default_rng(0)
    boxes = [(n, (3.0 * n + rng.normal(0, 4), 50 + rng.normal(0, 4), 30 + rng.uniform(-8, 8), 60.0)) for n in range(80)]
    way = Track(boxes).way(fps=10, room=1.0)
    assert np.abs(np.diff(way.centres, n=2, axis=0)).max() < 1.5  # 4 * sqrt(6), about 10, without smoothing
    assert np.abs(way.centres[:, 0] - 3.0 * np.arange(80) - 15).max() < 5
    assert way.size == (pytest.approx(37, abs=1.5), 60)
    assert way.box(200) == way.box(79)


def test_the_surroundings_stand_still_although_the_camera_shakes(tmp_path: Path) -> None:
    frames, away = shaken(waving())
    (part,) = examine(write(tmp_path / "shaky.mp4", frames), follow=True)["parts"]
    assert (part["kept"], part["camera"]) == (True, "shaky")
    crop = crop_of(part)
    found = np.array([crop.at(number / FPS)[:2] for number in range(40)]) - crop[:2]
    assert np.abs(found - away).max() < 1.5  # pixels; the camera moves by up to 8
    assert np.abs(np.array(away)).max() > 5


def test_what_moves_in_place_before_a_still_camera_is_cropped_as_before(tmp_path: Path) -> None:
    video = write(tmp_path / "wave.mp4", waving())
    assert examine(video, follow=True) == examine(video)


def test_the_sidecar_and_the_clips_made_from_it_follow_and_the_page_shows_it(tmp_path: Path) -> None:
    record = examine(write(tmp_path / "videos" / "walk.mp4", walking()), follow=True) | {"damage": None}
    decisions = decide([Video("walk.mp4", record, [InputPart({})])], 6)
    (tmp_path / "sidecar.csv").write_bytes(decisions.sidecar())
    assert decisions.sidecar().decode().splitlines()[0].endswith(",identity,crop_moves")
    labels = LabelsConfig(sidecar=str(tmp_path / "sidecar.csv"))
    made: list[Clip] = clips(source(tmp_path / "videos", clip_frames=24, size=64, labels=labels), "walk.mp4")
    columns = [dark_column(frame) for frame in made[0].frames[6:]]
    assert max(columns) - min(columns) < 0.1
    assert np.mean(columns) == pytest.approx(0.5, abs=0.06)
    still = examine(tmp_path / "videos" / "walk.mp4")
    assert b"crop_moves" not in decide([Video("walk.mp4", still | {"damage": None}, [InputPart({})])], 6).sidecar()
    page = make_page(decisions).decode()
    assert "motion, moves" in page
    left = 100 * crop_of(record["parts"][0]).at(record["stills"][0]["time"]).left / WIDTH
    assert f"left: {left:.2f}%" in page


@pytest.mark.parametrize("kind", ["frames", "arrays"])
def test_crops_move_in_folders_of_images_and_in_arrays_as_well(tmp_path: Path, kind: str) -> None:
    frames = walking(24)
    name = "walk" if kind == "frames" else "walk.npy"
    (tmp_path / "data" / "walk").mkdir(parents=True)
    if kind == "arrays":
        np.save(tmp_path / "data" / name, np.stack(frames))
    else:
        for number, frame in enumerate(frames):
            imageio.imwrite(tmp_path / "data" / name / f"{number}.png", frame)
    # 7 pixels per frame, 10 frames per second
    (tmp_path / "labels.csv").write_text(
        f"path,left,top,width,height,crop_moves\n{name},0,95,80,80,0:-20:95 2.4:148:95\n"
    )
    clipping = {"clip_frames": 16, "fps": 10, "labels": {"sidecar": str(tmp_path / "labels.csv")}}
    config = SourceConfig.model_validate({"name": kind, "path": str(tmp_path / "data"), kind: clipping})
    found = make_source(config, 0)
    (clip,) = found.clips(found.items()[0])
    columns = [dark_column(frame) for frame in clip.frames[4:]]
    assert np.ptp(columns) < 0.03
    assert np.mean(columns) == pytest.approx(0.5, abs=0.03)


def test_a_crop_that_moves_in_the_labels_is_kept(tmp_path: Path) -> None:
    moves = ((0.0, 90.0, 50.0), (1.5, 110.0, 60.0))
    segments = [(0.0, None, Crop(90, 50, 120, 120, moves))]
    (part,) = examine(write(tmp_path / "wave.mp4", waving()), segments=segments)["parts"]
    assert (part["kind"], part["moves"]) == ("given", [list(move) for move in moves])


def test_a_crop_moves_in_straight_lines_and_stands_still_before_and_after() -> None:
    crop = Crop(0, 0, 10, 20, ((1.0, 5.0, 6.0), (2.0, 15.0, 6.0), (4.0, 15.0, 10.0)))
    where = {0.0: (5, 6), 1.0: (5, 6), 1.5: (10, 6), 3.0: (15, 8), 9.0: (15, 10)}
    assert {time: crop.at(time) for time in where} == {time: Crop(*place, 10, 20) for time, place in where.items()}
    assert Crop(1, 2, 3, 4).at(5.0) == Crop(1, 2, 3, 4)


@pytest.mark.parametrize("seed", range(5))
def test_no_point_is_further_from_the_lines_between_corners_than_allowed(seed: int) -> None:
    points = np.random.default_rng(seed).standard_normal((60, 2)).cumsum(axis=0)
    corners = corners_of(points, tolerance=1.0)
    lines = np.stack([np.interp(np.arange(60), corners, points[corners, axis]) for axis in (0, 1)], axis=1)
    assert np.linalg.norm(lines - points, axis=1).max() <= 1.0
    assert corners_of(np.outer(np.arange(60.0), [1, 2]), tolerance=1e-6) == [0, 59]

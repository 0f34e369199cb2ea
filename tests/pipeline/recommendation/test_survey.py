"""What is found in datasets of which it is known."""

from pathlib import Path

import pytest

from pipeline.recommendation.kinds import KINDS, kind_of
from pipeline.recommendation.survey import STILL, VIDEO_NEIGHBOURS, Survey, survey
from preprocessing.dataset.reader import ClipDataset
from tests.pipeline.recommendation.made_videos import write_videos


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VDSM_CACHE", str(tmp_path / "cache"))


def surveyed(url: str) -> Survey:
    return survey(ClipDataset(url, "train"), 0)


def test_clips_videos_lengths_and_times_are_counted(tmp_path: Path) -> None:
    found = surveyed(write_videos(tmp_path / "data", people=6, windows=4, length=8))
    assert (found.clips, found.videos, found.identities, found.labels) == (24, 6, 6, ("action",))
    assert (found.min_frames, found.max_frames, found.fps) == (8, 8, 10.0)
    assert found.video_s == pytest.approx(4 * 8 / 10)
    assert found.frame_shape == (32, 32, 3)


@pytest.mark.parametrize(("people", "looks"), [(6, 6), (12, 4), (12, 3)])
def test_people_who_look_alike_are_one_look(tmp_path: Path, people: int, looks: int) -> None:
    found = surveyed(write_videos(tmp_path / "data", people=people, looks=looks))
    # A group above a fifth of all clips is split into its videos, because it could not be held out.
    expected = looks if people / looks <= 0.2 * people else people
    assert found.looks == expected
    if looks < people:
        assert found.paired_share == 1
        assert found.pair_distance < 0.1 * found.pairs.random_distance


def test_many_windows_of_each_video_leave_room_for_partners_from_every_video_of_the_person(tmp_path: Path) -> None:
    """Of three videos of a look, two are alike: their ten windows are not all partners of each other."""
    url = write_videos(tmp_path / "data", people=9, looks=3, stripes=(0, 6, 7), windows=10, length=2)
    found = survey(ClipDataset(url, "train"), 0)
    assert found.neighbours == VIDEO_NEIGHBOURS
    assert found.paired_share > 0.6
    assert found.agreement["identity"] == 0  # another video is another name here


def test_people_who_look_different_are_not_paired_more_often_than_the_widest_gap_allows(tmp_path: Path) -> None:
    found = surveyed(write_videos(tmp_path / "data", people=6, windows=4))
    alike = surveyed(write_videos(tmp_path / "alike", people=6, looks=2, windows=4))
    assert found.pair_distance > 3 * alike.pair_distance


def test_noise_is_what_tells_films_from_drawings_and_colour_from_grey(tmp_path: Path) -> None:
    filmed = surveyed(write_videos(tmp_path / "filmed", noise=6))
    drawn = surveyed(write_videos(tmp_path / "drawn", noise=0))
    strokes = surveyed(write_videos(tmp_path / "strokes", noise=0, grey=True))
    assert filmed.pixels.flat_share < 0.1
    assert drawn.pixels.flat_share > 0.9
    assert [kind_of(found) for found in (filmed, drawn, strokes)] == list(
        map(KINDS.get, ("filmed", "drawn", "strokes"))
    )
    assert (filmed.is_grey, strokes.is_grey) == (False, True)
    assert (filmed.descriptor, strokes.descriptor) == ("colour", "texture")


def test_what_moves_is_not_the_noise(tmp_path: Path) -> None:
    moving = surveyed(write_videos(tmp_path / "moving", noise=7))
    drawn = surveyed(write_videos(tmp_path / "drawn", noise=0))
    still = surveyed(write_videos(tmp_path / "still", noise=7, moves=False))
    # The square moves by two pixels of 32, and is half as high as the frame; it wraps once in the eight frames.
    assert 2 * 2 * 16 / 32**2 <= moving.pixels.moving_share < 0.15
    assert moving.pixels.moving_share == drawn.pixels.moving_share
    assert moving.pixels.still_share == 0
    assert still.pixels.moving_share < STILL
    assert still.pixels.still_share == 1


def test_labels_are_compared_with_chance(tmp_path: Path) -> None:
    found = surveyed(write_videos(tmp_path / "data", people=12, looks=6))
    # Each look is two people, and a pair is one of each.
    assert found.agreement["identity"] == 0
    assert found.chance["identity"] == pytest.approx(3 / 47)
    assert 0.4 < found.chance["action"] < 0.6


def test_labels_change_nothing_but_what_is_reported_of_them(tmp_path: Path) -> None:
    url = write_videos(tmp_path / "data", people=12, looks=6)
    clips = ClipDataset(url, "train")
    before = survey(clips, 0)
    clips.identities = clips.identities[::-1]
    clips.labels = {name: values[::-1] for name, values in clips.labels.items()}
    after = survey(clips, 0)
    assert before.pairs.to_bytes() == after.pairs.to_bytes()
    assert (before.looks, before.pixels, before.videos) == (after.looks, after.pixels, after.videos)

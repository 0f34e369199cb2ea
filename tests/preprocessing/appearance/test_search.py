"""The pairs of a split are mined once, and again for other settings or clips."""

from pathlib import Path

import numpy as np
import pytest

from preprocessing.appearance import search
from preprocessing.appearance.mining import MiningSettings
from preprocessing.appearance.pairs import Video
from preprocessing.appearance.search import find_pairs
from preprocessing.appearance.stored import read_descriptors
from preprocessing.dataset.reader import ClipDataset

SETTINGS = MiningSettings(neighbours=3, mutual=True, max_distance=None)
NAMES = ("neighbours", "mutual", "max_distance")


def test_pairs_are_mined_once_for_the_same_settings(
    small_figures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, mined = ClipDataset(str(small_figures), "train"), []
    mine = search.mine
    monkeypatch.setattr(search, "mine", lambda *given: mined.append(1) or mine(*given))  # type: ignore[func-returns-value]
    first = find_pairs(clips, "colour", SETTINGS, tmp_path).to_bytes()
    assert find_pairs(clips, "colour", SETTINGS, tmp_path).to_bytes() == first
    assert len(mined) == 1
    (kept,) = (tmp_path / "appearance").glob("pairs-*.npz")
    kept.write_bytes(kept.read_bytes()[:100])
    assert find_pairs(clips, "colour", SETTINGS, tmp_path).to_bytes() == first
    assert len(mined) == 2
    two_threads = MiningSettings(neighbours=3, mutual=True, max_distance=None, threads=2)
    assert find_pairs(clips, "colour", two_threads, tmp_path).to_bytes() == first
    assert len(mined) == 2
    for number, other in enumerate([(2, True, None), (3, False, None), (3, True, 0.5)]):
        find_pairs(clips, "colour", MiningSettings(**dict(zip(NAMES, other, strict=True))), tmp_path)  # type: ignore[arg-type]
        assert len(mined) == 3 + number
    find_pairs(clips, "texture", SETTINGS, tmp_path)
    find_pairs(ClipDataset(str(small_figures), "test"), "colour", SETTINGS, tmp_path)
    assert len(mined) == 7


@pytest.mark.parametrize("most", [20_000, 10])
def test_the_motion_of_windows_of_videos_is_compared_unless_they_are_many(
    small_figures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    clips = ClipDataset(str(small_figures), "train")
    clips.sources = [f"video{number // 3}.mp4" for number in range(len(clips))]
    clips.starts_s = np.arange(len(clips)) % 3 * 1.5
    monkeypatch.setattr(search, "MAX_CLIPS", most)
    # Every second video is of a look that does a single thing.
    monkeypatch.setattr(search, "shows_one_motion", lambda pairs, video, maps: video.sources % 2 == len(maps) % 2)
    found = find_pairs(clips, "colour", SETTINGS, tmp_path)
    assert found.one_motion.sum() == (0 if most < len(clips) else (Video.of(clips).sources % 2 == len(clips) % 2).sum())
    assert find_pairs(clips, "colour", SETTINGS, tmp_path).to_bytes() == found.to_bytes()


def test_embeddings_of_a_users_own_are_mined(small_figures: Path, tmp_path: Path) -> None:
    clips = ClipDataset(str(small_figures), "train")
    url = str(tmp_path / "own.npz")
    np.savez(url, keys=np.array(clips.keys[::-1]), descriptors=read_descriptors(clips, "colour", tmp_path)[::-1])
    assert (
        find_pairs(clips, url, SETTINGS, tmp_path).partners.tolist()
        == find_pairs(clips, "colour", SETTINGS, tmp_path).partners.tolist()
    )


def test_colours_of_grey_frames_are_refused(
    small_figures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = ClipDataset(str(small_figures), "train")
    monkeypatch.setattr(ClipDataset, "frame_shape", (32, 32, 1))
    with pytest.raises(ValueError, match="descriptor is colour, but the frames are grey; set it to texture"):
        find_pairs(clips, "colour", SETTINGS, tmp_path)

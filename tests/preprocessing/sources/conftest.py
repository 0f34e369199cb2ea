"""Videos for the tests of the source `videos` and of labels."""

from pathlib import Path

import pytest

from tests.preprocessing.video_files import ramp, write_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of anna and bert who wave and walk, twice each, next to files that are not videos."""
    folder = tmp_path_factory.mktemp("videos")
    for person in ("anna", "bert"):
        for action in ("wave", "walk"):
            for take in (1, 2):
                (folder / person / action).mkdir(parents=True, exist_ok=True)
                write_video(folder / person / action / f"{take:02d}.mp4", ramp(20))
    (folder / "README.txt").write_text("about")
    (folder / "anna" / "thumbnail.JPG").write_bytes(b"")
    (folder / ".hidden.mp4").write_bytes(b"")
    return folder

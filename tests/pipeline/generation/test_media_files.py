"""Media files hold the frames that were generated."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import generate as generate_module
from pipeline.generation.media_files import encode
from pipeline.report.grids import identity_donors
from preprocessing.dataset.reader import ClipDataset
from tests.pipeline.generation.outputs import frames_in


@pytest.mark.slow
def test_mp4_holds_the_frames(run: Path, small_figures: Path, tmp_path: Path) -> None:
    import av

    args = ["--run", str(run), "--data", str(small_figures), "--what", "reconstruction", "--columns", "3"]
    generate_module.main([*args, "--format", "mp4", "--scale", "1", "--out", str(tmp_path)])
    with av.open(str(tmp_path / "reconstruction.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == 32  # four frames, repeated for 4 s
    test = ClipDataset(str(small_figures), "test")
    donors = np.sort(np.random.default_rng(0).permutation(identity_donors(test, 100))[:3])
    assert np.abs(frames[0][:32, :32].astype(int) - test.frames(int(donors[0]))[0]).mean() < 12


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_the_bare_clip_holds_the_result_alone(suffix: str, run: Path, small_figures: Path, tmp_path: Path) -> None:
    import av

    keys = ClipDataset(str(small_figures), "test").keys
    args = ["--run", str(run), "--data", str(small_figures), "--dynamics-of", keys[0], "--static-of", keys[1], "--bare"]
    for scale in ("1", "3"):
        generate_module.main([*args, "--scale", scale, "--out", str(tmp_path / f"{scale}.{suffix}")])
    generate_module.main([*args, "--out", str(tmp_path / "same.npz")])
    (expected,) = frames_in(tmp_path / "same.npz")
    with av.open(str(tmp_path / f"1.{suffix}")) as video:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])
    assert frames.shape == expected.shape == (4, 32, 32, 3)  # not repeated, and without the donors
    assert np.abs(frames.astype(int) - expected).mean() < 12
    with av.open(str(tmp_path / f"3.{suffix}")) as video:
        assert {(frame.width, frame.height) for frame in video.decode(video=0)} == {(96, 96)}


def test_gif_keeps_the_colours_of_clips_with_few_colours() -> None:
    clip = np.zeros((3, 8, 8, 4), dtype=np.uint8)
    clip[..., 3] = 255
    for time in range(3):
        clip[time, time, :, 0] = 200
    gif = Image.open(io.BytesIO(encode(clip, "gif", 8.0)))
    assert gif.n_frames == 3
    for time in range(3):
        gif.seek(time)
        np.testing.assert_array_equal(np.asarray(gif.convert("RGB")), clip[time, ..., :3])

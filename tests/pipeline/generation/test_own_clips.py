"""`vdsm generate` with clips of the user: videos, pictures, folders, arrays, and keys of clips of the data."""

import re
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline import generate as generate_module
from pipeline.generation.execute import prepare
from pipeline.generation.request import GenerationRequest
from pipeline.generation.user_clips import read_clips
from preprocessing.dataset.reader import ClipDataset
from preprocessing.decoding.video import read_video
from tests.pipeline.generation.outputs import frames_in, refused
from tests.vdsm.evaluation.counting_progress import CountingProgress
from vdsm.checkpoint import load_disentangler
from vdsm.code_density import FittedPriors, density_at


@pytest.fixture(scope="module")
def own_clips(tmp_path_factory: pytest.TempPathFactory, small_figures: Path) -> Path:
    """Provide a user's clips in every form, valid and invalid: a wide video, a folder of images, and arrays."""
    folder, test = tmp_path_factory.mktemp("own_clips"), ClipDataset(str(small_figures), "test")
    wide = np.pad(test.frames(1).repeat(4, 1).repeat(4, 2), ((0, 0), (0, 0), (64, 64), (0, 0)))
    imageio.imwrite(folder / "wide.mp4", wide, plugin="pyav", codec="libx264", fps=12, out_pixel_format="yuv420p")
    (folder / "images").mkdir()
    for number, frame in enumerate(test.frames(2)):
        Image.fromarray(frame).save(folder / "images" / f"frame_{number + 5}.png")
    np.savez(folder / "two.npz", frames=np.stack([test.frames(3), test.frames(4)]))
    np.save(folder / "large.npy", np.zeros((8, 64, 64, 3), dtype=np.uint8))
    np.save(folder / "short.npy", np.zeros((2, 32, 32, 3), dtype=np.uint8))
    np.save(folder / "floats.npy", np.zeros((8, 32, 32, 3)))
    np.savez(folder / "other.npz", clips=np.zeros(3))
    np.savez_compressed(folder / "changed.npz", frames=np.stack([test.frames(3), test.frames(4)]))
    data = bytearray((folder / "changed.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "changed.npz").write_bytes(data)
    (folder / "cut.npz").write_bytes(data[:-100])
    np.savez(folder / "objects.npz", frames=np.array([{}], dtype=object))
    (folder / "noise.mp4").write_bytes(b"not a video" * 100)
    (folder / "empty").mkdir()
    return folder


def tensor(clip: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(clip).permute(0, 3, 1, 2)[None].float() / 255


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, small_figures: Path) -> Path:
    """Provide one frame of a figure as a still picture in every form, some larger, wider or turned on their side."""
    folder, frame = tmp_path_factory.mktemp("pictures"), ClipDataset(str(small_figures), "test").frames(2)[0]
    image = Image.fromarray(frame)
    for name in ("a.png", "a.webp", "a.bmp", "a.gif", "a.tiff"):
        image.save(folder / name, lossless=True)
    image.save(folder / "no suffix", "PNG")
    image.resize((64, 64), Image.Resampling.NEAREST).convert("RGBA").save(folder / "large.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    image.rotate(90).save(folder / "turned.png", exif=turned)
    Image.fromarray(np.pad(frame, ((0, 0), (9, 9), (0, 0)))).save(folder / "wide.png")
    image.save(folder / "two pages.tiff", save_all=True, append_images=[image])
    (folder / "one image").mkdir()
    image.save(folder / "one image" / "frame_1.png")
    np.save(folder / "frame.npy", frame)
    np.save(folder / "one.npy", frame[None])
    imageio.imwrite(folder / "one.mkv", frame[None], plugin="pyav", codec="ffv1", fps=12, out_pixel_format="bgr0")
    image.save(folder / "moves.gif", save_all=True, append_images=[image.rotate(9 * n) for n in range(1, 8)])
    return folder


@pytest.mark.slow
def test_clips_of_the_user_that_are_unlike_the_training_data_are_named_with_numbers(
    run: Path, own_clips: Path, small_figures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def warnings(place: float, **clips: str) -> list[str]:
        """Return the warnings of a model whose training codes are all at one place."""
        given = {name: (value,) for name, value in clips.items()}
        request = GenerationRequest(
            run=str(run), out=str(tmp_path / "x.gif"), data=str(small_figures), what="transfer", rows=1, columns=1,
            dynamics_of=given.get("dynamics_of", ()), static_of=given.get("static_of", ()),
        )  # fmt: skip
        generation = prepare(request)
        model = generation.trained.model
        model.fitted_priors = FittedPriors(density_at(torch.full((model.config.num_experts,), place)))
        caplog.clear()
        list(generation.execute(CountingProgress()))
        return [message for message in caplog.messages if "unlike" in message]

    found = warnings(1000.0, dynamics_of=str(own_clips / "wide.mp4"), static_of=str(own_clips / "images"))
    assert [line.partition(" is unlike the training data")[0] for line in found] == [
        str(own_clips / "wide.mp4"),
        str(own_clips / "images"),
    ]
    assert re.search(r"less likely than 100.0% of the training distribution, and .* PSNR of \d+\.\d dB", found[0])
    assert warnings(1000.0, static_of=str(own_clips / "images")) == found[1:]  # test clips of the data are not named


@pytest.mark.slow
def test_identity_of_one_user_clip_performs_the_action_of_another(
    run: Path, own_clips: Path, small_figures: Path, tmp_path: Path
) -> None:
    args = ["--run", str(run), "--dynamics-of", str(own_clips / "wide.mp4"), "--static-of", str(own_clips / "images")]
    generate_module.main([*args, "--out", str(tmp_path / "moved.npz")])
    with np.load(tmp_path / "moved.npz") as found:
        assert list(found["dynamics_of"]) == [str(own_clips / "wide.mp4")]
        assert list(found["static_of"]) == [str(own_clips / "images")]
        (generated,) = found["frames"]
    model = load_disentangler(run / "stage2.pt").eval()
    action = tensor(read_video(str(own_clips / "wide.mp4"), size=32, frames=4)[0])
    identity = tensor(ClipDataset(str(small_figures), "test").frames(2)[:4])
    expected = model.swap(dynamics_of=action, static_of=identity)[0].permute(0, 2, 3, 1).numpy() * 255
    np.testing.assert_allclose(generated, expected, atol=0.51)
    generate_module.main([*args, "--refinement-steps", "8", "--out", str(tmp_path / "refined.npz")])
    model.refinement_steps = 8
    refined = model.swap(dynamics_of=action, static_of=identity)[0].permute(0, 2, 3, 1).numpy() * 255
    np.testing.assert_allclose(frames_in(tmp_path / "refined.npz")[0], refined, atol=0.51)
    assert np.abs(refined - expected).max() > 1
    generate_module.main([*args, "--scale", "1", "--out", str(tmp_path / "moved.gif")])
    with Image.open(tmp_path / "moved.gif") as animation:
        assert animation.size == (2 * 34 - 2 + 6, 2 * 34 - 2 + 6)
        assert animation.info["duration"] == 80  # 12 frames per second, in the hundredths of a second of the GIF format


@pytest.mark.slow
def test_a_still_picture_gives_an_identity_in_every_form(pictures: Path, small_figures: Path) -> None:
    expected = ClipDataset(str(small_figures), "test").frames(2)[0]
    for path in sorted(pictures.iterdir()):
        clips = read_clips(str(path), size=32, channels=3, min_frames=4, fps=None, still_frames=6)
        frames = clips.frames(0)
        assert len(frames) == (4 if path.name == "moves.gif" else 6), path.name
        tolerance = {"large.png": 20, "a.gif": 12, "moves.gif": 12}.get(path.name, 0)
        assert np.abs(frames[0].astype(int) - expected).mean() <= tolerance, path.name
        if path.name != "moves.gif":
            assert np.array_equal(frames, frames[:1].repeat(6, axis=0)), path.name


def test_a_picture_of_one_performs_the_action_of_another(
    run: Path, own_clips: Path, pictures: Path, tmp_path: Path
) -> None:
    for name in ("a.png", "one.mkv"):
        args = ["--dynamics-of", str(own_clips / "wide.mp4"), "--static-of", str(pictures / name), "--length", "11"]
        generate_module.main(["--run", str(run), *args, "--out", str(tmp_path / "moved.npz")])
        (moved,) = frames_in(tmp_path / "moved.npz")
        assert len(moved) == 11


@pytest.mark.slow
def test_a_picture_has_no_action(
    run: Path, own_clips: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "a.webp", "no suffix", "one image", "frame.npy", "two pages.tiff"):
        args = ["--dynamics-of", str(pictures / name), "--static-of", str(own_clips / "images")]
        line = refused(["--run", str(run), *args, "--out", str(tmp_path / "out")], capsys)
        assert f"{name}: is a still picture, which shows no action; give a video, or give it to --static-of" in line
    (tmp_path / "broken.png").write_bytes((pictures / "a.png").read_bytes()[:200])
    args = ["--static-of", str(tmp_path / "broken.png"), "--dynamics-of", str(own_clips / "images")]
    line = refused(["--run", str(run), *args, "--out", str(tmp_path / "out")], capsys)
    assert "broken.png: an image cannot be decoded" in line


def test_images_of_a_folder_are_frames_in_the_order_of_their_numbers(own_clips: Path, small_figures: Path) -> None:
    found = read_clips(str(own_clips / "images"), size=32, channels=3, min_frames=4, fps=None)
    np.testing.assert_array_equal(found.frames(0), ClipDataset(str(small_figures), "test").frames(2))


def test_several_clips_make_a_grid_and_keys_name_clips_of_the_data(
    run: Path, own_clips: Path, small_figures: Path, tmp_path: Path
) -> None:
    test, train = ClipDataset(str(small_figures), "test"), ClipDataset(str(small_figures), "train")
    args = ["--run", str(run), "--data", str(small_figures), "--static-of", str(own_clips / "two.npz"), train.keys[5]]
    generate_module.main([*args, "--dynamics-of", test.keys[0], test.keys[7], "--out", str(tmp_path / "grid.npz")])
    with np.load(tmp_path / "grid.npz") as found:
        assert found["frames"].shape == (6, 4, 32, 32, 3)
        assert list(found["dynamics_of"]) == [test.keys[0]] * 3 + [test.keys[7]] * 3
        assert list(found["static_of"])[:3] == [
            f"{own_clips / 'two.npz'}[0]",
            f"{own_clips / 'two.npz'}[1]",
            train.keys[5],
        ]
    # The missing donors come from the data.
    generate_module.main([*args, "--what", "all", "--rows", "2", "--format", "npz", "--out", str(tmp_path / "all")])
    shapes = {path.stem: frames_in(path).shape for path in (tmp_path / "all").glob("*.npz")}
    clip = (32, 32, 3)
    assert shapes == {
        "transfer": (6, 4, *clip), "prior": (16, 4, *clip), "samples": (16, 4, *clip),
        "interpolation": (16, 4, *clip), "rollout": (2, 16, *clip), "reconstruction": (6, 4, *clip),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--dynamics-of", "gone.mp4", "--static-of", "two.npz"], "gone.mp4: there is no such file; to name a clip by"),
        (["--dynamics-of", "two.npz"], "a transfer needs two sides: give --static-of too"),
        (
            ["--dynamics-of", "large.npy", "--static-of", "two.npz"],
            "has frames of 64x64x3, but the model expects 32",
        ),
        (["--dynamics-of", "short.npy", "--static-of", "two.npz"], "short.npy: has 2 frames, but 4 are needed"),
        (
            ["--dynamics-of", "floats.npy", "--static-of", "two.npz"],
            "contains float64 [8, 32, 32, 3]; it must be uint8",
        ),
        (["--dynamics-of", "other.npz", "--static-of", "two.npz"], "other.npz: has no array `frames`"),
        (["--dynamics-of", "changed.npz", "--static-of", "two.npz"], "changed.npz: not a readable array"),
        (["--dynamics-of", "cut.npz", "--static-of", "two.npz"], "cut.npz: not a readable array"),
        (["--dynamics-of", "objects.npz", "--static-of", "two.npz"], "objects.npz: contains Python objects"),
        (["--dynamics-of", "noise.mp4", "--static-of", "two.npz"], "noise.mp4: not a video that can be opened"),
        (["--dynamics-of", "empty", "--static-of", "two.npz"], "empty: contains no image"),
        ([], "there are no clips for --what transfer; give --data"),
        (["--static-of", "images", "--what", "interpolation"], "an interpolation needs two identities"),
    ],
)
def test_unusable_clips_are_reported_in_one_line(
    args: list[str], message: str, run: Path, own_clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(own_clips)
    args = args or ["--what", "transfer"]
    line = refused(["--run", str(run), *args, "--out", str(tmp_path / "out")], capsys)
    assert message in line
    assert not (tmp_path / "out").exists()

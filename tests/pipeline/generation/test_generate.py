"""`vdsm generate`: outputs of every kind and format, the same every time."""

import io
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
from pipeline.generation.media_files import encode
from pipeline.generation.request import GenerationRequest
from pipeline.generation.user_clips import read_clips
from pipeline.recipe import Recipe
from pipeline.report.grids import action_donors, identity_donors
from pipeline.report.images import mosaic
from preprocessing.dataset.reader import ClipDataset
from preprocessing.decoding.video import read_video
from tests.pipeline.untrained_report import untrained_run
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


def size_of(path: Path) -> tuple[int, int]:
    """Return width and height of an image."""
    with Image.open(path) as image:
        return image.size


def frames_in(path: Path) -> NDArray[np.uint8]:
    """Return the clips in an .npz file: [N, T, H, W, C]."""
    with np.load(path) as arrays:
        frames: NDArray[np.uint8] = arrays["frames"]
        return frames


@pytest.mark.slow
def test_grids_have_a_cell_per_action_and_identity_and_are_reproducible(
    run: Path, small_figures: Path, tmp_path: Path
) -> None:
    args = ["--run", str(run), "--data", str(small_figures), "--rows", "4", "--columns", "3", "--scale", "1"]
    for out in ("a", "b"):
        generate_module.main([*args, "--out", str(tmp_path / out)])
    for name in ("transfer", "prior", "samples", "interpolation", "rollout", "reconstruction"):
        assert (tmp_path / "a" / f"{name}.gif").read_bytes() == (tmp_path / "b" / f"{name}.gif").read_bytes()
    with Image.open(tmp_path / "a" / "transfer.gif") as transfer:
        assert transfer.n_frames == 4
    assert transfer.size == (4 * 34 - 2 + 6, 5 * 34 - 2 + 6)
    assert size_of(tmp_path / "a" / "prior.gif") == (4 * 34 - 2 + 6, 4 * 34 - 2)
    assert size_of(tmp_path / "a" / "reconstruction.gif") == (3 * 34 - 2, 3 * 34 - 2)
    assert size_of(tmp_path / "a" / "samples.gif") == (3 * 34 - 2, 4 * 34 - 2)
    assert size_of(tmp_path / "a" / "interpolation.gif") == (5 * 34 - 2, 2 * 34 - 2)
    with Image.open(tmp_path / "a" / "rollout.gif") as rollout:
        assert rollout.n_frames == 16
    assert rollout.size == (4 * 34 - 2, 2 * (34 + 3) - 2)


def test_progress_has_a_phase_for_the_encoding_and_for_each_output(
    run: Path, small_figures: Path, tmp_path: Path
) -> None:
    request = GenerationRequest(run=str(run), out=str(tmp_path), data=str(small_figures), rows=2, columns=2, scale=1)
    generation, progress = prepare(request), CountingProgress()
    assert len(list(generation.execute(progress))) == 6
    assert len(progress.phases) == generation.phases == 7
    assert all(done == total for done, total in zip(progress.done, progress.totals, strict=True) if total is not None)


def test_dynamics_code_generates_more_frames_than_a_clip_has(run: Path, small_figures: Path, tmp_path: Path) -> None:
    args = ["--run", str(run), "--data", str(small_figures), "--columns", "2", "--rows", "2", "--scale", "1"]
    generate_module.main([*args, "--length", "11", "--format", "png", "--out", str(tmp_path)])
    width = 3 * 34 - 2 + 6
    assert size_of(tmp_path / "transfer.png") == (11 * width, 3 * 34 - 2 + 6)
    assert (tmp_path / "reconstruction.png").exists()


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


def tensor(clip: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(clip).permute(0, 3, 1, 2)[None].float() / 255


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


def test_samples_need_no_clips_and_depend_on_the_seed(run: Path, tmp_path: Path) -> None:
    args = ["--run", str(run), "--what", "samples", "--rows", "1", "--columns", "2"]
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        generate_module.main([*args, "--seed", seed, "--out", str(tmp_path / f"{name}.npz")])
    first, repeated, other = ((tmp_path / f"{name}.npz").read_bytes() for name in "abc")
    assert first == repeated
    assert first != other


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


def test_unknown_keys_and_contradictions_are_reported_in_one_line(
    run: Path, small_figures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--run", str(run), "--data", str(small_figures)]
    line = refused([*args, "--dynamics-of", "nobody-1", "--out", "nowhere"], capsys)
    assert "nobody-1: there is no such file and no clip with this key in the data" in line
    assert "is one file for 6 outputs; choose one of them with --what" in refused([*args, "--out", "a.gif"], capsys)
    assert "but --format is mp4" in refused([*args, "--out", "a.gif", "--format", "mp4"], capsys)
    assert not Path("nowhere").exists()


@pytest.mark.parametrize("name", ["x.mov", "x.JPEG", "x.html"])
def test_a_file_of_a_type_that_is_not_written_is_refused(
    name: str, run: Path, small_figures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--run", str(run), "--data", str(small_figures), "--what", "samples"]
    line = refused([*args, "--out", str(tmp_path / name)], capsys)
    assert f"ends in .{name.partition('.')[2]}, which is not written; end it in .gif, .mp4, .webm, .png, .npz" in line
    assert list(tmp_path.iterdir()) == []
    (tmp_path / name).mkdir()  # a folder may have any name
    generate_module.main([*args, "--out", str(tmp_path / name)])
    assert [path.name for path in (tmp_path / name).iterdir()] == ["samples.gif"]


def test_run_without_a_sequence_stage_generates_what_it_can(
    tmp_path: Path, tiny_recipe: Recipe, small_figures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    untrained_run(run, tiny_recipe, small_figures, seed=0, stage=1)
    args = ["--run", str(run), "--data", str(small_figures), "--columns", "2", "--rows", "2", "--scale", "1"]
    generate_module.main([*args, "--out", str(tmp_path / "out")])
    names = ["interpolation.gif", "prior.gif", "reconstruction.gif", "transfer.gif"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert "no sequence stage yet" in refused([*args, "--what", "rollout", "--out", "nowhere"], capsys)


def refused(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line with which a command ends, after any warning."""
    with pytest.raises(SystemExit) as exit_info:
        generate_module.main(args)
    assert exit_info.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_invalid_lengths_are_refused(run: Path, small_figures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--run", str(run), "--data", str(small_figures), "--out", "nowhere"]
    with pytest.raises(SystemExit):
        generate_module.main([*args, "--length", "0"])
    assert "length" in capsys.readouterr().err
    assert not Path("nowhere").exists()


def test_donors_cover_every_action_with_different_identities(small_figures: Path) -> None:
    test = ClipDataset(str(small_figures), "test")
    actions = action_donors(test)
    assert [int(test.labels["action"][index]) for index in actions] == list(range(len(test.vocabulary["action"])))
    donors = identity_donors(test, 100)
    assert sorted(test.identities[index] for index in donors) == sorted(set(test.identities))
    assert len({int(test.labels["action"][index]) for index in donors}) == len(donors)


def test_mosaic_puts_each_clip_in_its_cell() -> None:
    clips = [np.full((2, 4, 4, 3), value, dtype=np.uint8) for value in (50, 100, 150)]
    found = mosaic([[None, clips[0]], [clips[1], clips[2]]], gap=1, header_row=True)
    assert found.shape == (2, 4 + 1 + 3 + 4, 9, 4)
    assert (found[:, :4, :4, 3] == 0).all()
    assert (found[:, :4, 5:, :3] == 50).all()
    assert (found[:, 8:, :4, :3] == 100).all()
    assert (found[:, 8:, 5:] == [150, 150, 150, 255]).all()


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

"""`vdsm generate`: pictures of every kind and format, the same every time."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import generate as generate_module
from pipeline.config import Recipe
from pipeline.report.grids import action_donors, identity_donors
from pipeline.report.picture_files import encode
from pipeline.report.pictures import mosaic
from pipeline.training.run_store import open_run
from preprocessing.dataset import ClipDataset
from vdsm import checkpoint
from vdsm.disentangler import Disentangler


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Recipe, figures_dataset: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    open_run(str(folder), tiny_recipe, str(figures_dataset), ClipDataset(str(figures_dataset), "train").manifest)
    state = {"model": Disentangler(tiny_recipe.model).state_dict(), "model_config": tiny_recipe.model_dump()["model"]}
    checkpoint.save({**state, "stage": 2, "step": 16}, folder / "stage2.pt")
    return folder


def test_pictures_have_a_cell_per_action_and_identity_and_repeat_themselves(
    run: Path, figures_dataset: Path, tmp_path: Path
) -> None:
    words = ["--run", str(run), "--data", str(figures_dataset), "--rows", "4", "--columns", "3", "--scale", "1"]
    for out in ("a", "b"):
        generate_module.main([*words, "--out", str(tmp_path / out)])
    for name in ("transfer", "prior", "reconstruction"):
        assert (tmp_path / "a" / f"{name}.gif").read_bytes() == (tmp_path / "b" / f"{name}.gif").read_bytes()
    picture = Image.open(tmp_path / "a" / "transfer.gif")
    assert picture.size == (4 * 66 - 2 + 6, 5 * 66 - 2 + 6)
    assert picture.n_frames == 4
    assert Image.open(tmp_path / "a" / "prior.gif").size == (4 * 66 - 2 + 6, 4 * 66 - 2)
    assert Image.open(tmp_path / "a" / "reconstruction.gif").size == (3 * 66 - 2, 3 * 66 - 2)


def test_dynamics_code_goes_on_for_longer_than_a_clip(run: Path, figures_dataset: Path, tmp_path: Path) -> None:
    words = ["--run", str(run), "--data", str(figures_dataset), "--columns", "2", "--rows", "2", "--scale", "1"]
    generate_module.main([*words, "--length", "11", "--format", "png", "--out", str(tmp_path)])
    width = 3 * 66 - 2 + 6
    assert Image.open(tmp_path / "transfer.png").size == (11 * width, 3 * 66 - 2 + 6)
    assert (tmp_path / "reconstruction.png").exists()


def test_mp4_holds_the_frames(run: Path, figures_dataset: Path, tmp_path: Path) -> None:
    import av

    words = ["--run", str(run), "--data", str(figures_dataset), "--what", "reconstruction", "--columns", "3"]
    generate_module.main([*words, "--format", "mp4", "--scale", "1", "--out", str(tmp_path)])
    with av.open(str(tmp_path / "reconstruction.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) % 4 == 0
    test = ClipDataset(str(figures_dataset), "test")
    people = np.sort(np.random.default_rng(0).permutation(identity_donors(test, 100))[:3])
    assert np.abs(frames[0][:64, :64].astype(int) - test.frames(int(people[0]))[0]).mean() < 12


def test_wrong_lengths_are_refused(run: Path, figures_dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--run", str(run), "--data", str(figures_dataset), "--out", "nowhere"]
    with pytest.raises(SystemExit):
        generate_module.main([*words, "--length", "0"])
    assert "length" in capsys.readouterr().err
    assert not Path("nowhere").exists()


def test_donors_are_of_every_action_and_of_different_identities(figures_dataset: Path) -> None:
    test = ClipDataset(str(figures_dataset), "test")
    actions = action_donors(test)
    assert [int(test.labels["action"][index]) for index in actions] == list(range(len(test.vocabulary["action"])))
    people = identity_donors(test, 100)
    assert sorted(test.identities[index] for index in people) == sorted(set(test.identities))
    assert len({int(test.labels["action"][index]) for index in people}) == len(people)


def test_mosaic_puts_each_clip_in_its_cell() -> None:
    clips = [np.full((2, 4, 4, 3), value, dtype=np.uint8) for value in (50, 100, 150)]
    found = mosaic([[None, clips[0]], [clips[1], clips[2]]], gap=1, header_row=True)
    assert found.shape == (2, 4 + 1 + 3 + 4, 9, 4)
    assert (found[:, :4, :4, 3] == 0).all()
    assert (found[:, :4, 5:, :3] == 50).all()
    assert (found[:, 8:, :4, :3] == 100).all()
    assert (found[:, 8:, 5:] == [150, 150, 150, 255]).all()


def test_gif_keeps_the_colours_of_few_coloured_clips() -> None:
    clip = np.zeros((3, 8, 8, 4), dtype=np.uint8)
    clip[..., 3] = 255
    for time in range(3):
        clip[time, time, :, 0] = 200
    picture = Image.open(io.BytesIO(encode(clip, "gif", 8.0)))
    assert picture.n_frames == 3
    for time in range(3):
        picture.seek(time)
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), clip[time, ..., :3])

"""`vdsm generate`: outputs of every kind, the same every time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import generate as generate_module
from pipeline.generation.execute import prepare
from pipeline.generation.request import GenerationRequest
from pipeline.recipe import Recipe
from tests.pipeline.generation.outputs import refused
from tests.pipeline.untrained_report import untrained_run
from tests.vdsm.evaluation.counting_progress import CountingProgress


def size_of(path: Path) -> tuple[int, int]:
    """Return width and height of an image."""
    with Image.open(path) as image:
        return image.size


@pytest.mark.parametrize(
    ("what", "option"),
    [
        ("samples", "rows"), ("samples", "columns"), ("samples", "length"), ("transfer", "length"),
        ("interpolation", "columns"), ("prior", "columns"), ("rollout", "length"), ("reconstruction", "length"),
    ],
)  # fmt: skip
def test_an_output_beyond_the_memory_of_this_machine_is_refused(
    what: str, option: str, run: Path, small_figures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--run", str(run), "--data", str(small_figures), "--what", what, "--out", str(tmp_path / "out")]
    line = refused([*args, f"--{option}", str(10**9)], capsys)
    assert line.startswith("error: this takes at least ")
    assert line.endswith(" GB; lower --rows, --columns, --length or --scale")
    assert not (tmp_path / "out").exists()


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


def test_samples_need_no_clips_and_depend_on_the_seed(run: Path, tmp_path: Path) -> None:
    args = ["--run", str(run), "--what", "samples", "--rows", "1", "--columns", "2"]
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        generate_module.main([*args, "--seed", seed, "--out", str(tmp_path / f"{name}.npz")])
    first, repeated, other = ((tmp_path / f"{name}.npz").read_bytes() for name in "abc")
    assert first == repeated
    assert first != other


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


def test_without_a_sequence_stage_clips_may_be_shorter_than_it_would_need(
    tmp_path: Path, tiny_recipe: Recipe, small_figures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage2 = replace(tiny_recipe.training.stage2, clip_frames=12)
    recipe = tiny_recipe.model_copy(update={"training": replace(tiny_recipe.training, stage2=stage2)})
    for stage in (1, 2):
        untrained_run(tmp_path / f"stage{stage}", recipe, small_figures, seed=0, stage=stage)
    args = ["--data", str(small_figures), "--columns", "2", "--rows", "2", "--what", "reconstruction", "--out"]
    generate_module.main(["--run", str(tmp_path / "stage1"), *args, str(tmp_path / "out.npz")])
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays["frames"].shape[1] == 8
    message = "has clips of 8 frames, but the model was trained with 12; give longer clips"
    assert message in refused(["--run", str(tmp_path / "stage2"), *args, "nowhere.npz"], capsys)
    longer = ["--run", str(tmp_path / "stage1"), *args, "nowhere.npz", "--length", "9"]
    assert "--length is 9; give a smaller one" in refused(longer, capsys)


def test_invalid_lengths_are_refused(run: Path, small_figures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--run", str(run), "--data", str(small_figures), "--out", "nowhere"]
    with pytest.raises(SystemExit):
        generate_module.main([*args, "--length", "0"])
    assert "length" in capsys.readouterr().err
    assert not Path("nowhere").exists()

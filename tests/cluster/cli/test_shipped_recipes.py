"""Recipes and sweeps that come with the package go by name, from any folder; several recipes merge."""

from pathlib import Path

import pytest

from cluster.cli import shipped_recipes
from cluster.cli.shipped_recipes import purpose, recipe_path, shipped_sweeps, sweep_path
from cluster.errors import UserError
from pipeline.recipes import main
from tests.cluster.cli.commands import TrainLike, read, user_error

ROOT = Path(__file__).resolve().parents[3]


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")


@pytest.mark.parametrize("name", ["videos", "videos.yaml", "configs/videos.yaml"])
def test_a_recipe_is_found_by_its_name_and_by_its_path_in_the_repository(name: str) -> None:
    assert recipe_path(name) == ROOT / "configs" / "videos.yaml"
    assert read("--config", name).source.name == "videos"


@pytest.mark.parametrize("name", ["annealing", "configs/sweeps/annealing.yaml"])
def test_so_is_a_sweep(name: str) -> None:
    assert sweep_path(name) == ROOT / "configs" / "sweeps" / "annealing.yaml"


def test_a_file_of_the_user_comes_before_the_path_of_a_shipped_recipe_but_not_before_its_name() -> None:
    write(Path("configs/videos.yaml"), "seed: 3")
    write(Path("videos"), "seed: 4")
    assert (read("--config", "configs/videos.yaml").seed, read("--config=./videos").seed) == (3, 4)
    assert read("--config", "videos").source.name == "videos"


def test_a_folder_with_the_name_of_a_recipe_hides_nothing() -> None:
    Path("quickstart").mkdir()
    assert read("--config", "quickstart").source.name == "figures"


def test_an_unknown_name_is_answered_with_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    message = user_error(capsys, TrainLike, "--data", "x", "--config", "sprites-smal")
    assert message.startswith("there is no recipe sprites-smal; did you mean sprites-small? `vdsm recipes` lists all; ")
    with pytest.raises(UserError, match="there is no sweep quickstart; `vdsm recipes` lists all"):
        sweep_path("quickstart")


@pytest.mark.parametrize("repeated", [True, False])
def test_several_recipes_merge_and_later_ones_win(repeated: bool, tmp_path: Path) -> None:
    first = write(tmp_path / "a.yaml", "seed: 1\nmodel: {num_experts: 8, pose_size: 5}")
    second = write(tmp_path / "b.yaml", "model: {num_experts: 6}\ntraining: {stage1: {steps: 7}}")
    args = ["--config", first, "--config", second] if repeated else ["--config", first, second]
    command = read(*args, "--training.stage1.batch-clips", "4")
    assert (command.seed, command.model.pose_size, command.model.num_experts) == (1, 5, 6)
    assert (command.training.stage1.steps, command.training.stage1.batch_clips) == (7, 4)
    assert command.config == (first, second)
    assert read("--config", second, "--config", first).model.num_experts == 8
    assert read("--config", "sprites-small", second, "--model.num-experts=24").training.stage1.steps == 7


def test_an_error_names_the_recipe_that_the_value_is_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write(tmp_path / "a.yaml", "model: {num_experts: 0}\nseed: -1")
    second = write(tmp_path / "b.yaml", "seed: 1")
    message = user_error(capsys, TrainLike, "--data", "x", "--config", first, second)
    assert message.endswith(f"(in {first})")
    assert "num_experts" in message


def test_the_list_has_a_line_on_each_recipe_and_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    lines = capsys.readouterr().out.splitlines()
    for folder in (ROOT / "configs", ROOT / "configs" / "sweeps"):
        for path in folder.glob("*.yaml"):
            (line,) = (line for line in lines if line.split()[:1] == [path.stem])
            assert line.endswith(purpose(path.read_text()))
            assert line.endswith(".")


def test_a_recipe_is_printed_or_written_but_replaces_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    main(["annealing"])
    assert capsys.readouterr().out == shipped_sweeps()["annealing"].read_text()
    main(["videos", "--out", "mine.yaml"])
    assert Path("mine.yaml").read_bytes() == (ROOT / "configs" / "videos.yaml").read_bytes()
    with pytest.raises(SystemExit) as stopped:
        main(["sprites", "--out", "mine.yaml"])
    assert stopped.value.code == 2
    assert "mine.yaml exists" in capsys.readouterr().err


def test_no_recipe_and_sweep_share_a_name() -> None:
    assert not shipped_recipes.shipped_recipes().keys() & shipped_sweeps().keys()

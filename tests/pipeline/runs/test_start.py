"""A warm start: the weights of another run are checked, copied into the new run, and never read from there again."""

import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.cli.run import parse
from cluster.errors import UserError
from cluster.storage import api as storage
from pipeline.ray_train.dry_run import preview
from pipeline.recipe import Recipe
from pipeline.runs.checkpoints import CheckpointStore
from pipeline.runs.start import keep_start, new_start, stored_origin, stored_weights
from pipeline.runs.store import open_run
from pipeline.train import TrainCommand
from pipeline.training.position import TrainPosition
from pipeline.training.state import TrainState
from vdsm import checkpoint
from vdsm.disentangler import Disentangler

MANIFEST: dict[str, Any] = {"shards": [{"path": "train/0.tar", "sha256": "aa"}], "vocabulary": {"action": ["walk"]}}
END_1, END_2 = TrainPosition(1, 24), TrainPosition(2, 16)

Started = Callable[..., Recipe]


def state(recipe: Recipe, position: TrainPosition, *, averaged: bool = False) -> TrainState:
    """Return a checkpoint whose weights depend on the position, and their average too if there is one."""
    torch.manual_seed(10 * position.stage + position.step)
    weights, ema = (Disentangler(recipe.model).state_dict() for _ in range(2))
    return TrainState(
        position=position, model_config=asdict(recipe.model), weights=weights, temperature=10.0,
        ema=ema if averaged else None, uses_ema=averaged,
    )  # fmt: skip


def make_run(url: str, recipe: Recipe, *positions: TrainPosition, averaged: bool = False) -> str:
    """Make a run that got to the last of `positions`."""
    open_run(url, recipe, "/data", MANIFEST)
    kept = CheckpointStore(url, recipe.training)
    for position in positions:
        kept.save(state(recipe, position, averaged=averaged), last=position in (END_1, END_2))
        kept.flush()
    kept.close()
    return url


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "folder" else str(request.getfixturevalue("s3_bucket"))


@pytest.fixture
def started(tiny_recipe: Recipe) -> Started:
    """Return a function that makes the tiny recipe with a warm start and other settings of the model."""

    def make(start_from: str, **model: Any) -> Recipe:
        training = replace(tiny_recipe.training, start_from=start_from)
        return tiny_recipe.model_copy(update={"training": training, "model": replace(tiny_recipe.model, **model)})

    return make


def same(here: Any, there: Any) -> bool:
    return here.keys() == there.keys() and all(torch.equal(here[name], there[name]) for name in here)


def test_a_run_keeps_the_weights_that_it_starts_from(out: str, tiny_recipe: Recipe, started: Started) -> None:
    model, run = make_run(f"{out}/model", tiny_recipe, END_1, END_2), f"{out}/run"
    recipe = started(model)
    start = new_start(recipe, run)
    assert start is not None
    keep_start(run, start)
    assert same(stored_weights(run), state(tiny_recipe, END_2).weights)
    origin = stored_origin(run, recipe)
    assert origin.pop("checkpoint_sha256")
    assert origin == {"checkpoint": f"{model}/checkpoints/stage2-step00000016.pt", "stage": 2, "step": 16}
    # What happens to the model afterwards does not matter.
    for name in storage.list_files(model):
        storage.delete(f"{model}/{name}")
    assert new_start(recipe, run) is None
    assert same(stored_weights(run), state(tiny_recipe, END_2).weights)


@pytest.mark.parametrize(
    ("file", "position"),
    [("stage1.pt", END_1), ("stage2.pt", END_2), ("checkpoints/stage2-step00000010.pt", TrainPosition(2, 10))],
)
def test_any_checkpoint_of_a_run_may_be_named(
    out: str, tiny_recipe: Recipe, started: Started, file: str, position: TrainPosition
) -> None:
    url = make_run(f"{out}/model", tiny_recipe, END_1, TrainPosition(2, 10), END_2)
    start = new_start(started(f"{url}/{file}"), f"{out}/run")
    assert start is not None
    weights = state(tiny_recipe, position).weights
    if position.stage == 1:  # what is not trained is not taken
        weights = {name: value for name, value in weights.items() if ".frame_model." in name}
    assert same(start.weights, weights)
    assert (start.origin["stage"], start.origin["step"]) == position
    assert start.describe()[0] == f"start: {len(weights)} weights of {url}/{file} ({position})"


def test_averaged_weights_are_those_that_are_used(tmp_path: Path, tiny_recipe: Recipe, started: Started) -> None:
    url = make_run(str(tmp_path / "model"), tiny_recipe, END_1, END_2, averaged=True)
    start, made = new_start(started(url), None), state(tiny_recipe, END_2, averaged=True)
    assert start is not None
    assert made.ema is not None
    assert same(start.weights, made.ema)
    assert not same(start.weights, made.weights)


def test_of_a_run_with_a_finished_stage_1_that_stage_is_taken(
    tmp_path: Path, tiny_recipe: Recipe, started: Started, caplog: pytest.LogCaptureFixture
) -> None:
    url = make_run(str(tmp_path / "model"), tiny_recipe, END_1)
    start = new_start(started(url), None)
    assert start is not None
    assert all(".frame_model." in name for name in start.weights)
    assert start.describe()[1] == ("start: its sequence stage is untrained, so that of this training starts at random")
    assert f"{url} is not finished; its newest checkpoint is used" in caplog.messages


def test_a_started_run_never_reads_the_model_again(tmp_path: Path, tiny_recipe: Recipe, started: Started) -> None:
    run = make_run(str(tmp_path / "run"), tiny_recipe, TrainPosition(1, 10))
    assert new_start(started("/nowhere"), run) is None  # it has a checkpoint
    with pytest.raises(UserError, match="/nowhere: there is no run here"):
        new_start(started("/nowhere"), str(tmp_path / "other"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_experts": 8}, "model.num_experts is 8 and there 4"),
        ({"pose_size": 5}, "model.pose_size is 5 and there 4"),
        (
            {"frame_size": 64, "encoder_channels": (4, 4, 8, 8), "decoder_channels": (16, 8, 8, 4)},
            "model.frame_size is 64 and there 32",
        ),
    ],
)
def test_a_model_of_other_sizes_is_an_error_with_both_values(
    tmp_path: Path, tiny_recipe: Recipe, started: Started, changes: dict[str, Any], message: str
) -> None:
    url = make_run(str(tmp_path / "model"), tiny_recipe, END_1)
    with pytest.raises(UserError) as error:
        new_start(started(url, **changes), None)
    assert str(error.value).startswith(f"training.start_from is {url}: {message}")
    assert "\n" not in str(error.value)


def test_what_is_damaged_missing_or_no_checkpoint_is_one_line(
    tmp_path: Path, tiny_recipe: Recipe, started: Started
) -> None:
    url = make_run(str(tmp_path / "model"), tiny_recipe, END_1)
    path = Path(url) / "stage1.pt"
    content = path.read_bytes()
    foreign = tmp_path / "foreign.pt"
    torch.save({"weights": 1}, foreign)
    torch.save(state(tiny_recipe, END_1), tmp_path / "code.pt")  # a pickled object
    path.write_bytes(content[:100] + bytes(50) + content[150:])
    for name, message in [
        (str(path), f"{path}: is damaged"),
        (f"{url}/stage9.pt", f"{url}/stage9.pt: no such checkpoint"),
        (str(foreign), "was not written by this program"),
        (f"{tmp_path}/code.pt", "was not written by this program"),
        (str(tmp_path), "there is no run here"),
    ]:
        with pytest.raises(UserError) as error:
            new_start(started(name), None)
        assert message in str(error.value)
        assert "\n" not in str(error.value)


def test_a_copy_that_is_damaged_or_missing_is_one_line(tmp_path: Path, tiny_recipe: Recipe, started: Started) -> None:
    url, run = make_run(str(tmp_path / "model"), tiny_recipe, END_1), str(tmp_path / "run")
    recipe = started(url)
    keep_start(run, new_start(recipe, run))
    for name, read in (("start.pt", stored_weights), ("start.json", lambda run: stored_origin(run, recipe))):
        path = Path(run) / name
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(UserError, match=rf"^{path}\b.*(truncated|damaged).*; .*train again under another name$"):
            read(run)
        path.unlink()
        with pytest.raises(UserError, match=rf"^{path}\b.*; .*train again under another name$"):
            read(run)


def test_a_dry_run_prints_what_the_training_starts_from_or_what_is_wrong_with_it(
    tmp_path: Path, tiny_recipe: Recipe, started: Started, small_figures: Path
) -> None:
    url, data = make_run(str(tmp_path / "model"), tiny_recipe, END_1, END_2), str(small_figures)
    lines, missing = preview(started(url, rnn_dropout=0.0), data, str(tmp_path / "run"))
    assert missing == []
    count = len(state(tiny_recipe, END_2).weights)
    assert f"start: {count} weights of {url}/checkpoints/stage2-step00000016.pt (stage 2, step 16)" in lines
    assert "start: these settings of the model differ, which is allowed: rnn_dropout 0.2 -> 0.0" in lines
    _, missing = preview(started(url, pose_size=9), data, str(tmp_path / "run"))
    assert missing[0].startswith(f"start: training.start_from is {url}: model.pose_size is 9 and there 4")
    shutil.rmtree(url)
    _, missing = preview(started(url), data, str(tmp_path / "run"))
    assert missing[0].startswith(f"start: {url}: there is no run here")


def test_the_model_is_named_absolutely_and_without_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "own"))
    monkeypatch.chdir(tmp_path)
    for given, named in [
        ("runs/a", f"{tmp_path}/runs/a"), ("~/runs/a", f"{tmp_path}/own/runs/a"), ("s3://b/runs/a", "s3://b/runs/a"),
    ]:  # fmt: skip
        command = parse(TrainCommand, ["--data", "d", "--training.start-from", given], prog="vdsm train")
        assert Recipe.of(command).training.start_from == named
    with pytest.raises(UserError, match=r"^training\.start_from holds credentials") as error:
        parse(TrainCommand, ["--data", "d", "--training.start-from", "s3://key:secret@b/runs"], prog="vdsm train")
    assert "secret" not in str(error.value)


def test_a_run_without_a_warm_start_has_neither_file_nor_entry(tmp_path: Path, tiny_recipe: Recipe) -> None:
    assert new_start(tiny_recipe, str(tmp_path / "run")) is None
    keep_start(str(tmp_path / "run"), None)
    assert not (tmp_path / "run").exists()
    assert stored_origin(str(tmp_path / "run"), tiny_recipe) == {}
    assert "start" not in state(tiny_recipe, END_1).to_dict()


def test_a_checkpoint_names_what_its_training_started_from(tmp_path: Path, tiny_recipe: Recipe) -> None:
    written = state(tiny_recipe, END_1)
    origin = {"checkpoint": "s3://b/model/stage2.pt", "checkpoint_sha256": "ab", "stage": 2, "step": 16}
    written.provenance = replace(written.provenance, start=origin)
    checkpoint.save(written.to_dict(), tmp_path / "state.pt")
    assert TrainState.from_dict(checkpoint.load(tmp_path / "state.pt")).provenance.start == origin

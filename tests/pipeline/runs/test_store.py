"""The folder of a run: which settings may change under a name, and where a run resumes."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from cluster.errors import UserError
from cluster.storage import api as storage
from pipeline import former_names
from pipeline.recipe import Recipe
from pipeline.runs.checkpoints import CheckpointStore, checkpoints, file_name, position_of
from pipeline.runs.store import (
    as_started,
    changed_settings,
    data_hash,
    is_finished,
    load_run,
    open_run,
    read_recipe,
    run_url,
)
from pipeline.training.position import TrainPosition
from pipeline.training.state import BestValidation, TrainState
from preprocessing.dataset.reader import ClipDataset
from vdsm import checkpoint
from vdsm.disentangler import Disentangler

OLDER = ("noise", "order", "validation_clips")
"""Settings that runs of earlier versions lack."""

MANIFEST: dict[str, Any] = {"shards": [{"path": "train/0.tar", "sha256": "aa"}], "vocabulary": {"action": ["walk"]}}


def changed(recipe: Recipe, **settings: Any) -> Recipe:
    """Return the recipe with dotted settings (`__` for the dot) replaced."""
    tree = recipe.model_dump()
    for name, value in settings.items():
        *sections, last = name.split("__")
        branch = tree
        for section in sections:
            branch = branch[section]
        branch[last] = value
    return Recipe.model_validate(tree)


def test_a_name_is_resumed_under_the_same_settings(tmp_path: Path, tiny_recipe: Recipe) -> None:
    url = run_url(str(tmp_path), "first")
    assert not open_run(url, tiny_recipe, "/data", MANIFEST)
    assert open_run(url, tiny_recipe, "/data", MANIFEST)
    assert read_recipe(url) == tiny_recipe


def test_a_run_of_an_earlier_version_keeps_how_it_draws_and_validates(tmp_path: Path, tiny_recipe: Recipe) -> None:
    url = str(tmp_path)
    open_run(url, tiny_recipe, "/data", MANIFEST)
    assert read_recipe(url).training.noise == tiny_recipe.training.noise == "keyed"
    stored = yaml.safe_load((tmp_path / "config.yaml").read_text())
    for name in OLDER:
        del stored["training"][name]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(stored))
    for _ in range(2):  # the first resumption must not change what the second one finds
        kept = as_started(url, tiny_recipe).training
        assert (kept.noise, kept.order, kept.validation_clips) == ("global", "blocks", None)
        assert replace(kept, noise="keyed", order="lanes", validation_clips=8192) == tiny_recipe.training
        assert changed_settings(url, tiny_recipe, None) == []
        assert open_run(url, tiny_recipe, "/data", MANIFEST)
        assert read_recipe(url).training == kept
    assert as_started(str(tmp_path / "new"), tiny_recipe) == tiny_recipe


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"training__stage1__learning_rate": 0.5}, "training.stage1.learning_rate 0.001 -> 0.5"),
        ({"model__num_experts": 9}, "model.num_experts 4 -> 9"),
        ({"seed": 1}, "seed 0 -> 1"),
        ({"training__stage2__annealing__static__end": 2.0}, "training.stage2.annealing.static.end 1.0 -> 2.0"),
    ],
)
def test_a_setting_that_changes_the_result_is_refused_and_named(
    tmp_path: Path, tiny_recipe: Recipe, settings: dict[str, Any], text: str
) -> None:
    open_run(str(tmp_path), tiny_recipe, "/data", MANIFEST)
    with pytest.raises(UserError) as caught:
        open_run(str(tmp_path), changed(tiny_recipe, **settings), "/data", MANIFEST)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    assert read_recipe(str(tmp_path)) == tiny_recipe


def test_settings_that_do_not_change_the_result_may_change_and_are_kept(tmp_path: Path, tiny_recipe: Recipe) -> None:
    open_run(str(tmp_path), tiny_recipe, "/data", MANIFEST)
    settings = {"num_workers": 1, "log_interval": 3, "keep_checkpoints": 5, "max_failures": 0, "stages": "1"}
    other = changed(tiny_recipe, **{f"training__{name}": value for name, value in settings.items()})
    other = changed(other, evaluation__pairs=5, source__path="elsewhere")
    open_run(str(tmp_path), other, "/data", MANIFEST)
    assert read_recipe(str(tmp_path)) == other


def test_a_run_with_former_names_of_settings_is_resumed(
    tmp_path: Path, tiny_recipe: Recipe, caplog: pytest.LogCaptureFixture
) -> None:
    open_run(str(tmp_path), tiny_recipe, "/data", MANIFEST)
    config = tmp_path / "config.yaml"
    tree = yaml.safe_load(config.read_text())
    for former, current in former_names.SETTINGS.items():
        *sections, last = current.split(".")
        branch = tree
        for section in sections:
            branch = branch[section]
        branch[former.rpartition(".")[2]] = branch.pop(last)
    config.write_text(yaml.safe_dump(tree))
    assert "agreement" in config.read_text()
    other = changed(tiny_recipe, training__stage2__annealing__pose_distillation=0.25)
    with pytest.raises(UserError, match=r"training.stage2.annealing.pose_distillation 1.* -> 0.25;"):
        open_run(str(tmp_path), other, "/data", MANIFEST)
    assert read_recipe(str(tmp_path)) == tiny_recipe
    assert open_run(str(tmp_path), tiny_recipe, "/data", MANIFEST)
    assert "agreement" not in config.read_text()
    assert not caplog.messages  # the user cannot change what the run wrote


def test_other_data_is_refused_although_it_may_have_moved(tmp_path: Path, tiny_recipe: Recipe) -> None:
    open_run(str(tmp_path), tiny_recipe, "/data", MANIFEST)
    open_run(str(tmp_path), tiny_recipe, "/moved", MANIFEST)
    other = {**MANIFEST, "shards": [{"path": "train/0.tar", "sha256": "bb"}]}
    with pytest.raises(UserError, match="content of the dataset"):
        open_run(str(tmp_path), tiny_recipe, "/data", other)


def test_the_hash_of_the_data_is_that_of_its_shards(small_figures: Path) -> None:
    manifest = ClipDataset(str(small_figures), "train").manifest
    assert data_hash(manifest) == data_hash({**manifest, "software": {"python": "another"}})
    manifest["shards"][0]["sha256"] = "0" * 64
    assert data_hash(manifest) != data_hash(ClipDataset(str(small_figures), "train").manifest)


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Recipe) -> Path:
    """Return a run that was killed in stage 2."""
    open_run(str(tmp_path), tiny_recipe, "/data", MANIFEST)
    for position in (TrainPosition(1, 20), TrainPosition(1, 24), TrainPosition(2, 10)):
        write(tmp_path, tiny_recipe, position)
    checkpoint.save(state(tiny_recipe, TrainPosition(1, 24)).to_dict(), tmp_path / "stage1.pt")
    return tmp_path


def state(recipe: Recipe, position: TrainPosition) -> TrainState:
    torch.manual_seed(position.step)
    config = recipe.model_dump()["model"]
    weights = Disentangler(recipe.model).state_dict()
    return TrainState(position=position, model_config=config, weights=weights, temperature=10.0)


def small_state(step: int, weights: torch.Tensor | None = None, **fields: Any) -> TrainState:
    tensors = {} if weights is None else {"weights": weights}
    return TrainState(position=TrainPosition(1, step), model_config={}, weights=tensors, temperature=1.0, **fields)


def write(folder: Path, recipe: Recipe, position: TrainPosition) -> None:
    checkpoint.save(state(recipe, position).to_dict(), file(folder, position))


def file(folder: Path, position: TrainPosition) -> Path:
    return folder / "checkpoints" / file_name(position)


def store(folder: Path, recipe: Recipe, **changes: Any) -> CheckpointStore:
    return CheckpointStore(str(folder), replace(recipe.training, **changes))


def test_a_new_run_has_no_checkpoint(tmp_path: Path, tiny_recipe: Recipe) -> None:
    assert store(tmp_path, tiny_recipe).newest() is None


def test_a_run_resumes_from_its_newest_intact_checkpoint(run: Path, tiny_recipe: Recipe) -> None:
    kept = store(run, tiny_recipe)
    assert kept.newest() == TrainPosition(2, 10)
    assert kept.load(TrainPosition(2, 10)).position == TrainPosition(2, 10)
    newest = file(run, TrainPosition(2, 10))
    newest.write_bytes(newest.read_bytes()[:-200])
    assert kept.newest() == TrainPosition(1, 24)
    assert not newest.exists()
    (run / "stage1.pt").unlink()
    assert kept.newest() == TrainPosition(1, 24)


def test_checkpoints_after_the_position_of_a_rollback_are_deleted(run: Path, tiny_recipe: Recipe) -> None:
    assert store(run, tiny_recipe).newest(before=TrainPosition(1, 24)) == TrainPosition(1, 20)
    assert sorted(path.name for path in run.rglob("*.pt")) == ["stage1-step00000020.pt"]


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def any_run_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "run") if request.param == "folder" else f"{request.getfixturevalue('s3_bucket')}/runs/run"


def test_the_last_few_and_the_best_are_kept(any_run_url: str, tiny_recipe: Recipe) -> None:
    kept = CheckpointStore(any_run_url, replace(tiny_recipe.training, keep_checkpoints=2))
    best = {10: 10, 20: 20, 30: 20, 40: 20, 50: 20, 60: 60, 70: 60}
    remaining = []
    for step, best_step in best.items():
        kept.save(small_state(step, best_validation={1: BestValidation(best_step, -0.5)}), last=step == 70)
        kept.flush()
        names = storage.list_files(storage.join(any_run_url, "checkpoints"))
        remaining.append([position_of(name).step for name in names])  # type: ignore[union-attr]
    kept.close()
    assert remaining == [[10], [10, 20], [20, 30], [20, 30, 40], [20, 40, 50], [20, 50, 60][1:], [60, 70]]
    assert kept.load(TrainPosition(1, 60)) == small_state(60, best_validation={1: BestValidation(60, -0.5)})
    assert storage.exists(storage.join(any_run_url, "stage1.pt"))


def test_a_checkpoint_is_that_of_its_step_although_the_training_continues(tmp_path: Path, tiny_recipe: Recipe) -> None:
    kept = store(tmp_path, tiny_recipe)
    weights = torch.zeros(3)
    for step in range(1, 6):
        weights += 1
        kept.save(small_state(step, weights, optimiser={"deep": [{"weights": weights}]}), last=False)
    weights += 1
    kept.flush()
    for position in (TrainPosition(1, 4), TrainPosition(1, 5)):
        found = kept.load(position)
        assert torch.equal(found.weights["weights"], torch.full((3,), float(position.step)))
        assert torch.equal(found.optimiser["deep"][0]["weights"], found.weights["weights"])


def test_the_training_continues_while_a_checkpoint_is_written_and_the_old_one_is_kept_until_then(
    tmp_path: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, released, write = store(tmp_path, tiny_recipe, keep_checkpoints=1), threading.Event(), checkpoint.save
    kept.save(small_state(1), last=False)
    kept.flush()

    def slow(state: Any, path: Path) -> str:
        assert released.wait(60)
        return write(state, path)

    monkeypatch.setattr(checkpoint, "save", slow)
    kept.save(small_state(2), last=False)  # returns before anything is written
    assert set(checkpoints(str(tmp_path), tiny_recipe.training)) == {TrainPosition(1, 1)}
    released.set()
    kept.flush()
    assert set(checkpoints(str(tmp_path), tiny_recipe.training)) == {TrainPosition(1, 2)}


def test_an_error_while_a_checkpoint_is_written_is_raised_and_the_old_one_is_kept(
    tmp_path: Path, tiny_recipe: Recipe
) -> None:
    kept = store(tmp_path, tiny_recipe, keep_checkpoints=1)
    kept.save(small_state(1), last=False)
    kept.flush()
    (tmp_path / "checkpoints" / file_name(TrainPosition(1, 2))).mkdir()  # in the way of the next
    kept.save(small_state(2), last=False)
    with pytest.raises(OSError, match="stage1-step00000002"):
        kept.flush()
    assert kept.load(TrainPosition(1, 1)) == small_state(1)


def test_the_newest_model_of_a_run_is_loaded(run: Path, tiny_recipe: Recipe) -> None:
    model, recipe, origin = load_run(str(run))
    torch.manual_seed(10)
    expected = Disentangler(tiny_recipe.model).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert recipe == tiny_recipe
    assert (origin["stage"], origin["step"], origin["finished"]) == (2, 10, False)
    assert origin["checkpoint_sha256"] == checkpoint.verify(file(run, TrainPosition(2, 10)))
    checkpoint.save(state(tiny_recipe, TrainPosition(2, 16)).to_dict(), run / "stage2.pt")
    assert load_run(str(run))[2]["finished"]
    assert is_finished(str(run), tiny_recipe.training)
    assert max(checkpoints(str(run), tiny_recipe.training)) == TrainPosition(2, 16)


def test_the_error_for_a_run_that_cannot_be_loaded_names_the_reason(
    run: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    newest = file(run, TrainPosition(2, 10))
    newest.write_bytes(newest.read_bytes()[:-200])
    with pytest.raises(UserError, match=f"{newest}: is truncated"):
        load_run(str(run))
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(UserError, match="there is no run here"):
        load_run(str(empty))


def test_a_run_without_a_checkpoint_is_an_error(tmp_path: Path, tiny_recipe: Recipe) -> None:
    open_run(str(tmp_path), tiny_recipe, "/data", MANIFEST)
    with pytest.raises(UserError, match="has no checkpoint yet"):
        load_run(str(tmp_path))

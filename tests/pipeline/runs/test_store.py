"""The folder of a run: what may change under a name, and where a run goes on."""

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.errors import UserError
from cluster.storage import api as storage
from pipeline.recipe import Recipe
from pipeline.runs.checkpoints import CheckpointStore, checkpoints, file_name, place_of
from pipeline.runs.log import ProgressLine, RunLog, duration
from pipeline.runs.store import data_hash, is_finished, load_run, open_run, read_recipe, run_url
from pipeline.training.job import TrainPosition
from preprocessing.dataset.reader import ClipDataset
from vdsm import checkpoint
from vdsm.disentangler import Disentangler

MANIFEST: dict[str, Any] = {"shards": [{"path": "train/0.tar", "sha256": "aa"}], "vocabulary": {"action": ["walk"]}}


def changed(recipe: Recipe, **settings: Any) -> Recipe:
    """The recipe with dotted settings (`__` for the dot) replaced."""
    tree = recipe.model_dump()
    for name, value in settings.items():
        *sections, last = name.split("__")
        branch = tree
        for section in sections:
            branch = branch[section]
        branch[last] = value
    return Recipe.model_validate(tree)


def test_a_name_is_gone_on_with_under_the_same_settings(tmp_path: Path, tiny_recipe: Recipe) -> None:
    url = run_url(str(tmp_path), "first")
    assert not open_run(url, tiny_recipe, "/data", MANIFEST)
    assert open_run(url, tiny_recipe, "/data", MANIFEST)
    assert read_recipe(url) == tiny_recipe


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"training__stage1__learning_rate": 0.5}, "training.stage1.learning_rate 0.001 -> 0.5"),
        ({"model__num_experts": 9}, "model.num_experts 4 -> 9"),
        ({"seed": 1}, "seed 0 -> 1"),
        ({"training__stage2__annealing__static__end": 2.0}, "training.stage2.annealing.static.end 1.0 -> 2.0"),
    ],
)
def test_a_setting_that_changes_the_result_is_refused_and_named(
    tmp_path: Path, tiny_recipe: Recipe, settings: dict[str, Any], words: str
) -> None:
    open_run(str(tmp_path), tiny_recipe, "/data", MANIFEST)
    with pytest.raises(UserError) as caught:
        open_run(str(tmp_path), changed(tiny_recipe, **settings), "/data", MANIFEST)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert read_recipe(str(tmp_path)) == tiny_recipe


def test_settings_that_do_not_change_the_result_may_change_and_are_kept(tmp_path: Path, tiny_recipe: Recipe) -> None:
    open_run(str(tmp_path), tiny_recipe, "/data", MANIFEST)
    settings = {"num_workers": 1, "log_interval": 3, "keep_checkpoints": 5, "max_failures": 0, "stages": "1"}
    other = changed(tiny_recipe, **{f"training__{name}": value for name, value in settings.items()})
    other = changed(other, evaluation__pairs=5, source__path="elsewhere")
    open_run(str(tmp_path), other, "/data", MANIFEST)
    assert read_recipe(str(tmp_path)) == other


def test_other_data_is_refused_although_it_may_have_moved(tmp_path: Path, tiny_recipe: Recipe) -> None:
    open_run(str(tmp_path), tiny_recipe, "/data", MANIFEST)
    open_run(str(tmp_path), tiny_recipe, "/moved", MANIFEST)
    other = {**MANIFEST, "shards": [{"path": "train/0.tar", "sha256": "bb"}]}
    with pytest.raises(UserError, match="content of the dataset"):
        open_run(str(tmp_path), tiny_recipe, "/data", other)


def test_the_hash_of_the_data_is_that_of_its_shards(figures_dataset: Path) -> None:
    manifest = ClipDataset(str(figures_dataset), "train").manifest
    assert data_hash(manifest) == data_hash({**manifest, "software": {"python": "another"}})
    manifest["shards"][0]["sha256"] = "0" * 64
    assert data_hash(manifest) != data_hash(ClipDataset(str(figures_dataset), "train").manifest)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "-x"])
def test_a_name_is_a_plain_folder_name(name: str) -> None:
    with pytest.raises(UserError, match="--name"):
        run_url("runs", name)


def test_names_of_checkpoints_say_where_they_are() -> None:
    assert file_name(TrainPosition(1, 200)) == "stage1-step00000200.pt"
    assert place_of(file_name(TrainPosition(2, 123456789))) == TrainPosition(2, 123456789)
    assert place_of("anything-else.pt") is None
    assert max(TrainPosition(1, 900), TrainPosition(2, 5)) == TrainPosition(2, 5)


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Recipe) -> Path:
    """A run that was killed in stage 2."""
    open_run(str(tmp_path), tiny_recipe, "/data", MANIFEST)
    for place in (TrainPosition(1, 20), TrainPosition(1, 24), TrainPosition(2, 10)):
        write(tmp_path, tiny_recipe, place)
    checkpoint.save(state(tiny_recipe, TrainPosition(1, 24)), tmp_path / "stage1.pt")
    return tmp_path


def state(recipe: Recipe, place: TrainPosition) -> dict[str, Any]:
    torch.manual_seed(place.step)
    model = Disentangler(recipe.model)
    config = recipe.model_dump()["model"]
    return {"model": model.state_dict(), "model_config": config, "stage": place.stage, "step": place.step}


def write(folder: Path, recipe: Recipe, place: TrainPosition) -> None:
    checkpoint.save(state(recipe, place), file(folder, place))


def file(folder: Path, place: TrainPosition) -> Path:
    return folder / "checkpoints" / file_name(place)


def store(folder: Path, recipe: Recipe, **changes: Any) -> CheckpointStore:
    return CheckpointStore(str(folder), replace(recipe.training, **changes))


def test_a_new_run_begins_at_the_beginning(tmp_path: Path, tiny_recipe: Recipe) -> None:
    assert store(tmp_path, tiny_recipe).newest() is None


def test_a_run_goes_on_from_its_newest_whole_checkpoint(run: Path, tiny_recipe: Recipe) -> None:
    kept = store(run, tiny_recipe)
    assert kept.newest() == TrainPosition(2, 10)
    assert kept.load(TrainPosition(2, 10))["step"] == 10
    newest = file(run, TrainPosition(2, 10))
    newest.write_bytes(newest.read_bytes()[:-200])
    assert kept.newest() == TrainPosition(1, 24)
    assert not newest.exists()  # it stands in nobody's way any more
    (run / "stage1.pt").unlink()
    assert kept.newest() == TrainPosition(1, 24)


def test_what_comes_after_a_place_that_is_gone_back_behind_is_dropped(run: Path, tiny_recipe: Recipe) -> None:
    assert store(run, tiny_recipe).newest(before=TrainPosition(1, 24)) == TrainPosition(1, 20)
    assert sorted(path.name for path in run.rglob("*.pt")) == ["stage1-step00000020.pt"]


@pytest.fixture(params=["folder", "s3"])
def place_of_a_run(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "run") if request.param == "folder" else f"{request.getfixturevalue('s3_bucket')}/runs/run"


def test_the_last_few_and_the_best_are_kept(place_of_a_run: str, tiny_recipe: Recipe) -> None:
    kept = CheckpointStore(place_of_a_run, replace(tiny_recipe.training, keep_checkpoints=2))
    best = {10: 10, 20: 20, 30: 20, 40: 20, 50: 20, 60: 60, 70: 60}
    seen = []
    for step, best_step in best.items():
        kept.save({"step": step, "bests": {1: [best_step, -0.5]}}, TrainPosition(1, step), last=step == 70)
        kept.flush()
        names = storage.list_files(storage.join(place_of_a_run, "checkpoints"))
        seen.append([place_of(name).step for name in names])  # type: ignore[union-attr]
    kept.close()
    assert seen == [[10], [10, 20], [20, 30], [20, 30, 40], [20, 40, 50], [20, 50, 60][1:], [60, 70]]
    assert kept.load(TrainPosition(1, 60)) == {"step": 60, "bests": {1: [60, -0.5]}}
    assert storage.exists(storage.join(place_of_a_run, "stage1.pt"))


def test_a_checkpoint_is_that_of_its_step_although_the_training_goes_on(tmp_path: Path, tiny_recipe: Recipe) -> None:
    kept = store(tmp_path, tiny_recipe)
    weights = torch.zeros(3)
    for step in range(1, 6):
        weights += 1
        kept.save({"weights": weights, "deep": [{"weights": weights}]}, TrainPosition(1, step), last=False)
    weights += 1
    kept.flush()
    for place in (TrainPosition(1, 4), TrainPosition(1, 5)):
        found = kept.load(place)
        assert torch.equal(found["weights"], torch.full((3,), float(place.step)))
        assert torch.equal(found["deep"][0]["weights"], found["weights"])


def test_the_training_goes_on_while_a_checkpoint_is_written_and_the_old_one_stays_until_then(
    tmp_path: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, free, write = store(tmp_path, tiny_recipe, keep_checkpoints=1), threading.Event(), checkpoint.save
    kept.save({"step": 1}, TrainPosition(1, 1), last=False)
    kept.flush()

    def slow(state: Any, path: Path) -> str:
        assert free.wait(60)
        return write(state, path)

    monkeypatch.setattr(checkpoint, "save", slow)
    kept.save({"step": 2}, TrainPosition(1, 2), last=False)  # returns although nothing is written
    assert set(checkpoints(str(tmp_path), tiny_recipe.training)) == {TrainPosition(1, 1)}
    free.set()
    kept.flush()
    assert set(checkpoints(str(tmp_path), tiny_recipe.training)) == {TrainPosition(1, 2)}


def test_what_goes_wrong_while_a_checkpoint_is_written_is_raised_and_the_old_one_stays(
    tmp_path: Path, tiny_recipe: Recipe
) -> None:
    kept = store(tmp_path, tiny_recipe, keep_checkpoints=1)
    kept.save({"step": 1}, TrainPosition(1, 1), last=False)
    kept.flush()
    (tmp_path / "checkpoints" / file_name(TrainPosition(1, 2))).mkdir()  # in the way of the next
    kept.save({"step": 2}, TrainPosition(1, 2), last=False)
    with pytest.raises(OSError, match="stage1-step00000002"):
        kept.flush()
    assert kept.load(TrainPosition(1, 1)) == {"step": 1}


def test_the_newest_model_of_a_run_is_loaded(run: Path, tiny_recipe: Recipe) -> None:
    model, recipe, info = load_run(str(run))
    torch.manual_seed(10)
    expected = Disentangler(tiny_recipe.model).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert recipe == tiny_recipe
    assert (info["stage"], info["step"], info["finished"]) == (2, 10, False)
    assert info["checkpoint_sha256"] == checkpoint.verify(file(run, TrainPosition(2, 10)))
    checkpoint.save(state(tiny_recipe, TrainPosition(2, 16)), run / "stage2.pt")
    assert load_run(str(run))[2]["finished"]
    assert is_finished(str(run), tiny_recipe.training)
    assert max(checkpoints(str(run), tiny_recipe.training)) == TrainPosition(2, 16)


def test_a_run_that_cannot_be_loaded_says_why(run: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    newest = file(run, TrainPosition(2, 10))
    newest.write_bytes(newest.read_bytes()[:-200])
    with pytest.raises(UserError, match=f"{newest}: is truncated"):
        load_run(str(run))
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(UserError, match="there is no run here"):
        load_run(str(empty))


def test_a_run_without_a_checkpoint_says_so(tmp_path: Path, tiny_recipe: Recipe) -> None:
    open_run(str(tmp_path), tiny_recipe, "/data", MANIFEST)
    with pytest.raises(UserError, match="has no checkpoint yet"):
        load_run(str(tmp_path))


def record(stage: int, step: int, kind: str = "train") -> dict[str, Any]:
    names = ["loss", "reconstruction", "kl_static", "kl_pose", "kl_dynamics", "clips_per_s", "seconds_per_step", "elbo"]
    names += ["weight_static", "weight_pose", "weight_dynamics", "temperature", "learning_rate", "gradient_norm"]
    names += ["data_wait_share", "memory_gb"]
    overall = step + (24 if stage == 2 else 0)
    place = {"kind": kind, "stage": stage, "step": step, "steps": 24, "overall_step": overall}
    return {**place, **dict.fromkeys(names, 0.5)}


def test_steps_that_are_taken_again_stand_in_the_log_once(tmp_path: Path) -> None:
    first = RunLog(str(tmp_path), 40, 24)
    first.take({"kind": "event", "event": "start", "stage": 1, "step": 0})
    for stage, step in ((1, 10), (1, 20), (1, 24), (2, 4), (2, 8)):
        first.take(record(stage, step))
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "sta')  # what a killed process may leave
    second = RunLog(str(tmp_path), 40, 24)
    second.take({"kind": "event", "event": "resume", "stage": 2, "step": 4})
    second.take(record(2, 8))
    second.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in lines] == [(1, 10), (1, 20), (1, 24), (2, 4), (2, 8)]
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [(event["event"], event["stage"], event["step"]) for event in events] == [("start", 1, 0), ("resume", 2, 4)]


def test_tensorboard_shows_each_step_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for event, steps in (
        ({"event": "start", "stage": 1, "step": 0}, (4, 8, 12)),
        (
            {"event": "resume", "stage": 1, "step": 8},
            (12, 16),
        ),
    ):
        log = RunLog(str(tmp_path), 24, 24)
        log.take({"kind": "event", **event})
        for step in steps:
            log.take(record(1, step))
        log.take(record(1, steps[-1], "validation"))
        log.close()
    board = EventAccumulator(str(tmp_path / "tensorboard"), purge_orphaned_data=True).Reload()
    assert [point.step for point in board.Scalars("loss/annealed")] == [4, 8, 12, 16]
    assert {"kl/pose", "speed/clips_per_s", "validation/elbo"} <= set(board.Tags()["scalars"])


class Screen:
    """A stream that may be a terminal."""

    def __init__(self, terminal: bool) -> None:
        self.text, self._terminal = "", terminal

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return self._terminal


def test_progress_is_one_rewritten_line_in_a_terminal_and_few_lines_elsewhere() -> None:
    terminal, file = Screen(terminal=True), Screen(terminal=False)
    for screen in (terminal, file):
        line = ProgressLine(40, screen)  # type: ignore[arg-type]
        for step in range(1, 25):
            line.show(record(1, step))
        line.end()
    assert terminal.text.count("\n") == 1
    assert terminal.text.count("\r\x1b[K") == 24
    assert "stage 1  24/24  0 clips/s  8s left  loss 0.5000  KL static 0.50000 pose 0.50000" in terminal.text
    assert [line.split()[2] for line in file.text.splitlines()] == ["1/24", "24/24"]
    figures = ["waiting for data 50.0%", "weights static 0.5", "temperature 0.5", "rate 0.5", "gradient 0.5", "0.5 GB"]
    for figure in figures:
        assert figure in file.text


@pytest.mark.parametrize(("seconds", "text"), [(41.6, "42s"), (200, "3m 20s"), (18420, "5h 07m")])
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text

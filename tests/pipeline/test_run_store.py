"""The folder of a run: what may change under a name, and where a run goes on."""

import json
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from cluster.errors import UserError
from pipeline.config import Recipe
from pipeline.training import resume
from pipeline.training.run_log import ProgressLine, RunLog, duration
from pipeline.training.run_store import (
    Place,
    checkpoint_name,
    checkpoints,
    data_hash,
    is_finished,
    load_run,
    open_run,
    place_of,
    read_recipe,
    run_url,
)
from preprocessing.dataset import ClipDataset
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
    assert checkpoint_name(Place(1, 200)) == "stage1-step00000200"
    assert place_of(checkpoint_name(Place(2, 123456789))) == Place(2, 123456789)
    assert place_of("checkpoint_manager_snapshot.json") is None
    assert max(Place(1, 900), Place(2, 5)) == Place(2, 5)


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Recipe) -> Path:
    """A run that was killed in stage 2, with the snapshot that Ray Train keeps of its last two checkpoints."""
    open_run(str(tmp_path), tiny_recipe, "/data", MANIFEST)
    for place in (Place(1, 20), Place(1, 24), Place(2, 10)):
        write(tmp_path, tiny_recipe, place)
    checkpoint.save(state(tiny_recipe, Place(1, 24)), tmp_path / "stage1.pt")
    names = [checkpoint_name(Place(1, 24)), checkpoint_name(Place(2, 10))]
    snapshot(tmp_path).write_text(json.dumps(manager_state(names)))
    return tmp_path


def state(recipe: Recipe, place: Place) -> dict[str, Any]:
    torch.manual_seed(place.step)
    model = Disentangler(recipe.model)
    config = recipe.model_dump()["model"]
    return {"model": model.state_dict(), "model_config": config, "stage": place.stage, "step": place.step}


def write(folder: Path, recipe: Recipe, place: Place) -> None:
    checkpoint.save(state(recipe, place), file(folder, place))


def file(folder: Path, place: Place) -> Path:
    return folder / "checkpoints" / checkpoint_name(place) / "state.pt"


def snapshot(folder: Path) -> Path:
    return folder / "checkpoints" / resume.SNAPSHOT


def manager_state(names: list[str]) -> dict[str, Any]:
    results = [{"checkpoint_dir_name": name, "metrics": {}} for name in names]
    return {"ray_version": ray.__version__, "checkpoint_results": results, "latest_checkpoint_result": results[-1]}


def test_a_sound_snapshot_is_left_to_ray(run: Path, tiny_recipe: Recipe) -> None:
    assert resume.find(str(run), tiny_recipe.training) == (Place(2, 10), None)
    assert snapshot(run).exists()


def test_a_new_run_begins_at_the_beginning(tmp_path: Path, tiny_recipe: Recipe) -> None:
    assert resume.find(str(tmp_path), tiny_recipe.training) == (None, None)


@pytest.mark.parametrize("content", ["", '{"ray_version": "2.', '{"ray_version": "1.0"}', "[]"])
def test_without_a_readable_snapshot_the_newest_whole_checkpoint_is_taken(
    run: Path, tiny_recipe: Recipe, content: str
) -> None:
    snapshot(run).write_text(content)
    newest = file(run, Place(2, 10))
    assert resume.find(str(run), tiny_recipe.training) == (Place(2, 10), str(newest))
    # Ray Train would not start with this file.
    assert not snapshot(run).exists()


def test_a_damaged_or_deleted_checkpoint_is_passed_over(run: Path, tiny_recipe: Recipe) -> None:
    newest = file(run, Place(2, 10))
    newest.write_bytes(newest.read_bytes()[:-200])
    assert resume.find(str(run), tiny_recipe.training) == (Place(1, 24), str(run / "stage1.pt"))
    (run / "stage1.pt").unlink()
    newest.unlink()
    snapshot(run).write_text(json.dumps(manager_state([checkpoint_name(Place(2, 10))])))
    assert resume.find(str(run), tiny_recipe.training) == (Place(1, 24), str(file(run, Place(1, 24))))


def test_the_newest_model_of_a_run_is_loaded(run: Path, tiny_recipe: Recipe) -> None:
    model, recipe, info = load_run(str(run))
    torch.manual_seed(10)
    expected = Disentangler(tiny_recipe.model).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert recipe == tiny_recipe
    assert (info["stage"], info["step"], info["finished"]) == (2, 10, False)
    assert info["checkpoint_sha256"] == checkpoint.verify(file(run, Place(2, 10)))
    checkpoint.save(state(tiny_recipe, Place(2, 16)), run / "stage2.pt")
    assert load_run(str(run))[2]["finished"]
    assert is_finished(str(run), tiny_recipe.training)
    assert max(checkpoints(str(run), tiny_recipe.training)) == Place(2, 16)


def test_a_run_that_cannot_be_loaded_says_why(run: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    newest = file(run, Place(2, 10))
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
    names = ("loss", "kl_static", "kl_pose", "kl_dynamics", "clips_per_s", "seconds_per_step", "elbo")
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


@pytest.mark.parametrize(("seconds", "text"), [(41.6, "42s"), (200, "3m 20s"), (18420, "5h 07m")])
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text

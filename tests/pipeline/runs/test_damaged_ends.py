"""A finished run whose last files are damaged: restored from their second copy, or named."""

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.storage import api as storage
from pipeline.ray_train.dry_run import preview
from pipeline.ray_train.run import train_recipe
from pipeline.recipe import Recipe
from pipeline.runs.checkpoints import CheckpointStore
from pipeline.runs.store import is_finished, open_run
from pipeline.training.position import TrainPosition
from tests.pipeline.runs.test_store import MANIFEST, state

DAMAGES = {
    "truncated": lambda content: content[:-200],
    "empty": lambda content: b"",
    "changed": lambda content: content[:100] + bytes(50) + content[150:],
}


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def finished(request: pytest.FixtureRequest, tmp_path: Path, tiny_recipe: Recipe) -> str:
    """Return a run that has finished both stages, whose stages end at the steps of the recipe."""
    url = str(tmp_path / "run") if request.param == "folder" else f"{request.getfixturevalue('s3_bucket')}/run"
    open_run(url, tiny_recipe, "/data", MANIFEST)
    kept = CheckpointStore(url, replace(tiny_recipe.training, keep_checkpoints=9))
    for position in (TrainPosition(1, 24), TrainPosition(2, 10), TrainPosition(2, 16)):
        kept.save(state(tiny_recipe, position), last=position.step in (24, 16))
        kept.flush()
    kept.close()
    assert is_finished(url, tiny_recipe.training)
    return url


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_whose_last_checkpoint_is_damaged_is_not_finished(
    finished: str, damage: str, tiny_recipe: Recipe
) -> None:
    names = ["stage2.pt", "checkpoints/stage2-step00000016.pt"]
    for name in names:
        url = f"{finished}/{name}"
        storage.write_bytes(url, DAMAGES[damage](storage.read_bytes(url)))
    assert not is_finished(finished, tiny_recipe.training)
    _, problems = preview(tiny_recipe, "nowhere", finished)
    lines, _ = preview(tiny_recipe, "nowhere", finished)
    assert f"run: {finished}, resumes from stage 2, step 10" in lines
    assert not any("run:" in problem for problem in problems)
    assert CheckpointStore(finished, tiny_recipe.training).newest() == TrainPosition(2, 10)
    assert not any(storage.exists(f"{finished}/{name}") for name in names)


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("damage", [*DAMAGES, "missing"])
def test_the_end_of_a_stage_is_restored_from_its_second_copy(
    finished: str, stage: int, damage: str, tiny_recipe: Recipe
) -> None:
    url = f"{finished}/stage{stage}.pt"
    intact = storage.read_bytes(url)
    if stage == 1:  # the run was killed at the end of stage 1
        for name in ("stage2.pt", "checkpoints/stage2-step00000010.pt", "checkpoints/stage2-step00000016.pt"):
            storage.delete(f"{finished}/{name}")
    if damage == "missing":  # the run was killed between its two writes
        storage.delete(url)
    else:
        storage.write_bytes(url, DAMAGES[damage](intact))
    assert CheckpointStore(finished, tiny_recipe.training).newest() == TrainPosition(stage, 24 if stage == 1 else 16)
    assert storage.read_bytes(url) == intact


def test_training_a_finished_run_names_a_stage_that_is_damaged(
    finished: str, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("preprocessing.dataset.manifest.read_manifest", lambda data: (MANIFEST, "0" * 64))
    url = f"{finished}/stage1.pt"
    storage.write_bytes(url, storage.read_bytes(url)[:-200])
    with caplog.at_level("INFO"):
        train_recipe(tiny_recipe, "/data", finished)
    assert caplog.messages[0].startswith(f"{url}: is truncated")
    assert caplog.messages[-1] == f"{finished} is finished; nothing is left to train"

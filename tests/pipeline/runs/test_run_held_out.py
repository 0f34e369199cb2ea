"""A run on data of format 3 keeps which clips it holds out, and all its processes map one copy of that."""

import mmap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cluster.errors import UserError
from pipeline.recipe import Recipe
from pipeline.runs import held_out as module
from pipeline.runs.held_out import keep_held_out, run_held_out
from pipeline.training.job import Job, sharded_table
from preprocessing.dataset.reader import ClipDataset
from preprocessing.dataset.upgrade import upgrade_dataset
from tests.fuzz import seeds


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VDSM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def clips(tmp_path: Path) -> ClipDataset:
    seeds.write_dataset(tmp_path / "data", 3)
    return ClipDataset(str(tmp_path / "data"), "train")


def kept(run: Path) -> Path:
    (path,) = run.glob("held-out-*.arrow")
    return path


def test_it_is_found_once_and_mapped_from_then_on(
    tiny_recipe: Recipe, clips: ClipDataset, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    keep_held_out(tiny_recipe, clips, str(run))
    assert kept(run).read_bytes() == kept(cache / "held-out").read_bytes()
    monkeypatch.setattr(module, "find_held_out", lambda *_: pytest.fail("it is stored"))
    found = run_held_out(tiny_recipe, clips, str(run))
    assert found is not None
    assert isinstance(found.data, mmap.mmap)
    kept(cache / "held-out").unlink()  # as on another machine
    again = run_held_out(tiny_recipe, clips, str(run))
    assert again is not None
    assert np.array_equal(again.trained, found.trained)
    kept(cache / "held-out").write_bytes(b"torn")
    assert run_held_out(tiny_recipe, clips, str(run)) is not None


def test_other_settings_hold_out_other_clips(tiny_recipe: Recipe, clips: ClipDataset, tmp_path: Path) -> None:
    for changed in (
        tiny_recipe,
        tiny_recipe.model_copy(update={"seed": 77}),
        tiny_recipe.model_copy(update={"training": replace(tiny_recipe.training, validation_fraction=0.4)}),
        tiny_recipe.model_copy(update={"training": replace(tiny_recipe.training, validation_unit="clip")}),
    ):
        keep_held_out(changed, clips, str(tmp_path / "run"))
    assert len(list((tmp_path / "run").glob("held-out-*.arrow"))) == 4


def test_a_damaged_file_of_a_run_is_named(tiny_recipe: Recipe, clips: ClipDataset, tmp_path: Path, cache: Path) -> None:
    run = tmp_path / "run"
    keep_held_out(tiny_recipe, clips, str(run))
    kept(run).write_bytes(kept(run).read_bytes()[:-9])
    kept(cache / "held-out").unlink()
    with pytest.raises(UserError, match=r"run/held-out-\w+\.arrow is damaged \(is not an Arrow file.*; delete it"):
        run_held_out(tiny_recipe, clips, str(run))


def test_format_2_and_orders_that_read_all_clips_have_no_such_file(tiny_recipe: Recipe, tmp_path: Path) -> None:
    seeds.write_dataset(tmp_path / "two", 2)
    two = ClipDataset(str(tmp_path / "two"), "train")
    keep_held_out(tiny_recipe, two, str(tmp_path / "run"))
    upgrade_dataset(str(tmp_path / "two"))
    three = ClipDataset(str(tmp_path / "two"), "train")
    blocks = replace(tiny_recipe.training, order="blocks")
    job = Job(model=tiny_recipe.model, training=blocks, seed=0, clips=three)
    assert sharded_table(job) is None
    assert run_held_out(tiny_recipe.model_copy(update={"training": blocks}), three) is None
    assert not (tmp_path / "run").exists()
    assert sharded_table(Job(model=tiny_recipe.model, training=tiny_recipe.training, seed=0, clips=three)) is not None

"""A run keeps the pairs that it trains on, and a resumed one uses them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import UserError
from pipeline.recipe import Recipe
from pipeline.runs import pairs as run_folder
from pipeline.runs.pairs import PAIRS, keep_pairs, run_pairs
from pipeline.training.config import TrainingConfig
from pipeline.training.samples_config import AppearanceConfig
from preprocessing.appearance.mining import MiningSettings
from preprocessing.appearance.search import find_pairs
from preprocessing.dataset.reader import ClipDataset
from vdsm.config import AnnealingConfig

Appearance = Callable[..., TrainingConfig]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VDSM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def appearance(tiny_recipe: Recipe) -> Appearance:
    """Return a function that makes settings paired by appearance."""
    old = tiny_recipe.training
    stage1 = replace(old.stage1, pairing="appearance")
    return lambda **changes: replace(old, stage1=stage1, appearance=AppearanceConfig(**changes))


@pytest.mark.parametrize("pairing", ["none", "identity", "video"])
def test_other_pairings_have_no_list_of_pairs(
    tiny_recipe: Recipe, tiny_clips: ClipDataset, tmp_path: Path, pairing: Any
) -> None:
    stage1 = replace(tiny_recipe.training.stage1, pairing=pairing, annealing=AnnealingConfig())
    training = replace(tiny_recipe.training, stage1=stage1)
    assert run_pairs(training, tiny_clips) is None
    keep_pairs(str(tmp_path / "run"), None)
    assert not (tmp_path / "run").exists()


def test_pairs_are_those_of_the_settings(appearance: Appearance, tiny_clips: ClipDataset, tmp_path: Path) -> None:
    for neighbours, mutual, limit in [(8, True, None), (2, False, None), (4, True, 0.02)]:
        settings = MiningSettings(neighbours=neighbours, mutual=mutual, max_distance=limit)
        training = appearance(neighbours=neighbours, mutual=mutual, max_distance=limit)
        found = run_pairs(training, tiny_clips)
        assert found is not None
        assert found.to_bytes() == find_pairs(tiny_clips, "colour", settings, tmp_path / "other").to_bytes()


def test_a_run_keeps_its_first_pairs(
    appearance: Appearance, tiny_clips: ClipDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = str(tmp_path / "run")
    first = run_pairs(appearance(), tiny_clips, run)
    assert first is not None
    assert not (tmp_path / "run").exists()
    keep_pairs(run, first)
    assert (tmp_path / "run" / PAIRS).read_bytes() == first.to_bytes()
    others = run_pairs(appearance(neighbours=1), tiny_clips)
    assert others is not None
    keep_pairs(run, others)
    assert (tmp_path / "run" / PAIRS).read_bytes() == first.to_bytes() != others.to_bytes()
    monkeypatch.setattr(run_folder, "find_pairs", lambda *_: pytest.fail("the run has pairs"))
    again = run_pairs(appearance(neighbours=1), tiny_clips, run)
    assert again is not None
    assert again.to_bytes() == first.to_bytes()


def test_pairs_that_are_damaged_are_named(appearance: Appearance, tiny_clips: ClipDataset, tmp_path: Path) -> None:
    path = tmp_path / PAIRS
    keep_pairs(str(tmp_path), run_pairs(appearance(), tiny_clips))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"is damaged .*; delete it to find the same pairs again") as error:
        run_pairs(appearance(), tiny_clips, str(tmp_path))
    assert str(error.value).startswith(str(path))
    assert len(str(error.value).splitlines()) == 1


def test_pairs_of_another_dataset_are_refused(
    appearance: Appearance, tiny_clips: ClipDataset, small_figures: Path, tmp_path: Path
) -> None:
    keep_pairs(str(tmp_path), run_pairs(appearance(), ClipDataset(str(small_figures), "test")))
    with pytest.raises(UserError, match="has pairs of 18 clips, but the dataset has 54; restore the dataset"):
        run_pairs(appearance(), tiny_clips, str(tmp_path))


def test_embeddings_that_are_missing_are_one_line(appearance: Appearance, tiny_clips: ClipDataset) -> None:
    with pytest.raises(UserError, match=r"own\.npz is missing"):
        run_pairs(appearance(descriptor="own.npz"), tiny_clips)

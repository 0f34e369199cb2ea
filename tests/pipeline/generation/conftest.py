"""A run to generate from."""

from pathlib import Path

import pytest

from pipeline.recipe import Recipe
from tests.pipeline.untrained_report import untrained_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Recipe, small_figures: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    untrained_run(folder, tiny_recipe, small_figures, seed=0)
    return folder

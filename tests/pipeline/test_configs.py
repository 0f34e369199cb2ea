"""The recipes in configs/ can be used unchanged."""

from pathlib import Path

import pytest
import yaml

from cluster.cli import settings
from cluster.cli.recipe_file import read_recipe
from cluster.cli.settings import merge, prune
from cluster.cli.shipped_recipes import shipped_recipe
from pipeline.quickstart import RECIPE, QuickstartCommand
from pipeline.recipe import Recipe

RECIPES = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.yaml"))


def load(path: Path) -> Recipe:
    tree = merge(settings.defaults(Recipe), read_recipe(path, Recipe))
    return settings.validated(Recipe, tree, lambda _: f" (in {path})")


def test_there_are_recipes_for_the_quickstart_and_for_sprites_of_both_sizes() -> None:
    assert {path.stem for path in RECIPES} >= {"quickstart", "sprites", "sprites-small"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_valid_and_sets_only_what_differs_from_the_defaults(path: Path) -> None:
    load(path)
    written, defaults = read_recipe(path, Recipe), prune(settings.defaults(Recipe))

    def repeated(tree: settings.Tree, below: settings.Tree, prefix: str = "") -> list[str]:
        found = []
        for name, value in tree.items():
            if isinstance(value, dict):
                found += repeated(value, below[name], f"{prefix}{name}.")
            elif value == (list(below[name]) if isinstance(below[name], tuple) else below[name]):
                found.append(prefix + name)
        return found

    # the source is named even if it is the default: it states what a recipe is for
    assert set(repeated(written, defaults)) <= {"source.name"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_starts_with_a_comment_that_states_its_purpose(path: Path) -> None:
    assert path.read_text().startswith("# ")


def test_sprites_is_trained_as_published() -> None:
    recipe = load(next(path for path in RECIPES if path.stem == "sprites"))
    model = recipe.model
    assert (model.pose_size, model.num_experts, model.dynamics_size, model.frame_size) == (30, 40, 50, 64)
    assert (model.rnn_width, model.rnn_layers, model.decoder_channels) == (512, 3, (512, 256, 128, 64))
    for stage in (recipe.training.stage1, recipe.training.stage2):
        assert (stage.steps, stage.batch_clips, stage.learning_rate) == (200 * 50, 20, 1e-3)
    pairs = {"none": 1, "identity": 2}
    first, second = recipe.training.stage1, recipe.training.stage2
    assert first.clip_frames * pairs[first.pairing] == 16
    assert second.clip_frames * pairs[second.pairing] == 8
    assert recipe.source.name == "lpc"


def test_the_quickstart_finds_its_recipe_and_needs_no_files() -> None:
    path = shipped_recipe(RECIPE)
    assert path in RECIPES
    assert load(path).source.name == "figures"
    assert set(yaml.safe_load(path.read_text())) <= set(QuickstartCommand.model_fields)

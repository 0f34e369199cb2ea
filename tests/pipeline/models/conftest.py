"""A run with random weights and fitted priors, and the same model exported."""

from pathlib import Path

import pytest
import torch

from pipeline.recipe import Recipe
from tests.pipeline.untrained_report import untrained_run
from vdsm import checkpoint
from vdsm.code_density import FittedPriors, density_at
from vdsm.model_folder import ModelFacts, write_model_folder


def add_priors(path: Path) -> None:
    """Add fitted priors to a checkpoint."""
    content = checkpoint.load(path)
    model = checkpoint.disentangler_of(content, path)
    sizes = model.config.num_experts, model.config.dynamics_size
    generator = torch.Generator().manual_seed(4)
    priors = FittedPriors(*(density_at(torch.randn(size, generator=generator)) for size in sizes))
    checkpoint.save(content | {checkpoint.PRIORS: priors.to_dict()}, path)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Recipe, small_figures: Path) -> Path:
    """Return a run. Do not change it."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    untrained_run(folder, tiny_recipe, small_figures, seed=0)
    add_priors(folder / "stage2.pt")
    return folder


@pytest.fixture(scope="session")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the model of `run` as an exported folder. Do not change it."""
    folder = tmp_path_factory.mktemp("exported") / "figures"
    facts = ModelFacts(4, True, 12.5, {"checkpoint_sha256": "0" * 64, "stage": 2, "step": 16})
    write_model_folder(folder, checkpoint.load_disentangler(run / "stage2.pt"), facts)
    return folder

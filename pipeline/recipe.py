"""The recipe: one configuration for every job."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from cluster.cli.paths import expand_home
from cluster.cli.settings import Section
from pipeline import former_names
from pipeline.training.config import TrainingConfig
from preprocessing.recipe import DataRecipe
from vdsm.config import ModelConfig

TRAINING_SETTINGS = (
    "seed",
    *(f"model.{name}" for name in ("num_experts", "static_groups", "pose_size", "dynamics_size", "frame_size")),
    "training.stage1.pairing",
    *(
        f"training.stage{stage}.{name}"
        for stage in (1, 2)
        for name in ("steps", "batch_clips", "clip_frames", "learning_rate")
    ),
    *(f"training.{name}" for name in ("stages", "num_workers", "use_gpu", "precision", "augmentation", "start_from")),
)
"""Dotted paths of the settings that someone who trains meets first."""


class EvaluationConfig(Section):
    """How a trained model is evaluated."""

    judge_steps: int = Field(default=1500, ge=1)
    """Optimiser steps of the judge, which is trained on real training clips only."""
    judge_batch_clips: int = Field(default=64, ge=1, le=65_536)
    """Clips per batch of the judge's training."""
    test_clips: int | None = Field(default=20_000, ge=2)
    """Number of test clips that are measured, rounded up to complete shards, which hold a random sample; none means
    all."""
    pairs: int = Field(default=1000, ge=2, le=1_000_000)
    """Pairs of test clips whose codes are swapped; fixed by the seed."""
    probe_clips: int = Field(default=3000, ge=1)
    """Maximum number of training clips that the probes are trained on."""
    dci_trees: int = Field(default=0, ge=0, le=10_000)
    """Trees of the random forests of DCI, such as 100; 0 leaves DCI out. Needs scikit-learn, of the extra train."""
    exploration_trees: int = Field(default=0, ge=0, le=10_000)
    """Trees of the random forests that map parts of the codes to factors, such as 100; the parts of each factor are
    then swapped alone. 0 leaves this out. Needs scikit-learn, of the extra train."""
    refinement_steps: int = Field(default=0, ge=0, le=100_000)
    """Gradient steps that fit the static code of each clip to its own frames, starting from the encoder's estimate; 0
    uses that estimate. 30 suffice for handwriting."""
    prior: Literal["fitted", "published"] = "fitted"
    """What codes are sampled from: the densities that were fitted to the training codes, if the run has them, or the
    published priors of the model."""
    grid_clips: int = Field(default=720, ge=1)
    """Maximum number of clips decoded for the report's action-transfer grid; it limits the test identities shown."""


class Recipe(DataRecipe):
    """All settings of all jobs; each command reads the sections it needs."""

    FORMER_NAMES: ClassVar[Mapping[str, str]] = former_names.SETTINGS

    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @classmethod
    def of(cls, command: "Recipe") -> "Recipe":
        """Return the recipe within a command, which extends it by fields of its own.

        A run that it names is named absolutely: workers run in other folders, and so may the next call.
        """
        recipe = Recipe.model_validate({name: getattr(command, name) for name in Recipe.model_fields})
        start = recipe.training.start_from
        if start is None or "://" in start:
            return recipe
        training = replace(recipe.training, start_from=str(Path(expand_home(start)).resolve()))
        return recipe.model_copy(update={"training": training})

"""Trainings of a recipe in this process, for `people.py` and `wrong_pairs.py`."""

import sys
import time
from pathlib import Path
from typing import Any

from torch import Tensor

from cluster.cli import settings
from cluster.cli.recipe_file import read_recipe
from cluster.cli.settings import merge
from pipeline.recipe import Recipe
from pipeline.training.reporter import QuietReporter

LOSSES = ("elbo", "loss", "reconstruction", "kl_static", "kl_pose", "kl_dynamics", "pose_distillation")


def recipe_of(path: Path, changes: dict[str, Any] | None = None) -> Recipe:
    """Return a recipe with other values of some settings, as a tree, and with one worker."""
    tree = merge(settings.defaults(Recipe), read_recipe(path, Recipe))
    tree = merge(merge(tree, changes or {}), {"training": {"num_workers": 1}})
    return settings.validated(Recipe, tree, lambda _: f" (in {path})")


class Printer(QuietReporter):
    """Keeps the last weights, and prints the losses after a title."""

    def __init__(self, title: str = "") -> None:
        super().__init__()
        self._title = title
        self.weights: dict[str, Tensor] = {}
        self.began = time.monotonic()

    def log(self, record: dict[str, Any]) -> None:
        """Print some of the losses, and every validation."""
        is_validation = record.get("kind") == "validation"
        if is_validation or (record.get("kind") == "train" and record["step"] % 100 == 0):
            losses = {name: round(value, 4) for name, value in record.items() if name in LOSSES}
            where = f"{time.monotonic() - self.began:.0f} s, stage {record['stage']}, step {record['step']}"
            where += ", validation" if is_validation else ""
            print(f"{self._title}{where}: {losses}", file=sys.stderr, flush=True)

    def save(self, state: Any, **_: Any) -> None:
        """Keep the weights."""
        self.weights = {name: tensor.clone() for name, tensor in state.weights.items()}

"""A recipe while it is put together: values, the reason of each, and warnings."""

from dataclasses import dataclass, field
from typing import Any

from cluster.cli import settings
from cluster.cli.recipe_file import read_recipe
from cluster.cli.settings import Tree
from cluster.cli.shipped_recipes import shipped_recipe
from pipeline.recipe import Recipe

SECTIONS = ("model", "training")
"""Sections of the recipe that `vdsm train` reads."""


@dataclass
class Draft:
    """A recipe that starts from one in configs/."""

    base: str
    """Its file name."""
    tree: Tree
    """The values that differ from the defaults, as nested dicts."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Dotted path -> why, for values that the dataset or the machine decides."""
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, base: str) -> "Draft":
        """Return the model and training settings of a recipe in configs/."""
        tree = read_recipe(shipped_recipe(base), Recipe)
        return cls(base, {name: tree.get(name, {}) for name in SECTIONS})

    def recipe(self) -> Recipe:
        """Return the validated recipe.

        Raises:
            UserError: values contradict each other.
        """
        tree = settings.merge(settings.defaults(Recipe), self.tree)
        return settings.validated(Recipe, tree, lambda _: f" (from configs/{self.base})")

    def get(self, path: str) -> Any:
        """Return the value at a dotted path, by default the default."""
        value: Any = settings.merge(settings.defaults(Recipe), self.tree)
        for name in path.split("."):
            value = value[name]
        return value

    def set(self, path: str, value: Any, why: str) -> None:
        """Set a value and its reason."""
        *sections, last = path.split(".")
        branch = self.tree
        for name in sections:
            branch = branch.setdefault(name, {})
        branch[last] = value
        self.reasons[path] = why

    def remove(self, path: str) -> None:
        """Leave a setting at its default."""
        *sections, last = path.split(".")
        branch = self.tree
        for name in sections:
            branch = branch.get(name, {})
        branch.pop(last, None)
        self.reasons.pop(path, None)

"""Digests that identify a sweep and its runs: a sweep resumes only if they match, and equal trials share a run.

Digests are computed over the names that settings had when the first studies were stored. Renaming a setting therefore
changes no digest, and the studies and runs of earlier versions resume.
"""

import hashlib
import json

from cluster.cli.settings import Tree
from pipeline.recipe import Recipe
from pipeline.tuning.parameter_names import former_path
from pipeline.tuning.sweep import Sweep


def sweep_identity(sweep: Sweep, recipe: Recipe) -> dict[str, str]:
    """Return what must not change for results to be comparable, each part as a digest."""
    space = {}
    for path, parameter in sweep.space.items():
        fields = parameter.model_dump(mode="json")
        fields["when"] = {former_path(other): value for other, value in fields["when"].items()}
        space[former_path(path)] = fields
    return {
        "space": digest(space),
        "objective": digest([sweep.objective, sweep.steps_fraction, sweep.judge_steps, sweep.pairs]),
        "recipe": digest(_learned(recipe)),
    }


def run_name(recipe: Recipe) -> str:
    """Return the name of a trial's run: equal settings give the same run, so that no training is repeated."""
    return "trial-" + digest(_learned(recipe))[:12]


def digest(content: object) -> str:
    """Return 16 hexadecimal digits that identify a JSON value."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def non_default_settings(recipe: Recipe) -> Tree:
    """Return the settings of a recipe that differ from the defaults."""
    return _differences(recipe.model_dump(mode="json"), Recipe().model_dump(mode="json"))


def _learned(recipe: Recipe) -> Tree:
    """Return the changed settings that determine what a run learns, under their former names.

    A setting added in a later version does not appear while it has its default, so a study outlives an upgrade.
    """
    changed = non_default_settings(recipe)
    return _with_former_names({name: changed[name] for name in ("seed", "model", "training") if name in changed})


def _with_former_names(tree: Tree, prefix: str = "") -> Tree:
    renamed: Tree = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        former = former_path(path).rpartition(".")[2]
        renamed[former] = _with_former_names(value, f"{path}.") if isinstance(value, dict) else value
    return renamed


def _differences(tree: Tree, base: Tree) -> Tree:
    """Return the entries of `tree` that differ from `base`, section by section."""
    differences: Tree = {}
    for name, value in tree.items():
        default = base.get(name)
        if isinstance(value, dict) and isinstance(default, dict):
            if nested := _differences(value, default):
                differences[name] = nested
        elif value != default:
            differences[name] = value
    return differences

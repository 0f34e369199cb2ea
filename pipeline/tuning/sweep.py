"""The settings of a sweep: the searched space, the number of trials, the objective."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from cluster.cli import settings
from cluster.cli.former_names import current_path, warn_of_former_names
from cluster.cli.settings import Section
from cluster.cli.yaml_file import read_mapping
from cluster.errors import UserError
from pipeline.recipe import Recipe
from pipeline.tuning.space import Parameter


class Sweep(Section):
    """A search for better settings. Every trial is a complete run, because schedules are fractions of its length."""

    objective: Literal["disentanglement", "elbo", "both"] = "disentanglement"
    """What ranks the trials, measured on validation identities. `disentanglement`: judged swaps (without labels, the
    cycle score); `elbo`: the un-annealed negative ELBO per pixel value; `both`: a Pareto front of the two."""
    trials: int = Field(default=20, ge=1, le=1_000_000)
    """Trials of the first round, failed ones included."""
    steps_fraction: float = Field(default=1.0, gt=0, le=1)
    """Fraction of the recipe's steps that a trial of the first round trains: a complete, shorter run."""
    promoted: int = Field(default=0, ge=0)
    """Number of best trials to retrain with all steps, in a second round that decides."""
    startup_trials: int = Field(default=8, ge=1)
    """Trials with random values before the sampler starts to learn from results."""
    keep: int | None = Field(default=None, ge=1)
    """Number of best trials whose checkpoints are kept; of every other trial that ended, only settings, logs and scores
    are. None keeps all checkpoints."""
    concurrent_trials: int | None = Field(default=None, ge=1, le=10_000)
    """Trials trained at the same time; none means as many as the cluster has room for."""
    judge_steps: int = Field(default=250, ge=1)
    """Optimiser steps of the judge that scores the trials; it is trained once for the whole sweep."""
    pairs: int = Field(default=400, ge=2, le=1_000_000)
    """Number of validation clip pairs whose codes are swapped."""
    seed: int = Field(default=0, ge=0)
    """Seed of the sampler. Every trial uses the recipe's own seed."""
    space: dict[str, Parameter]
    """The searched settings, by dotted path."""

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of the objectives."""
        return ("disentanglement", "elbo") if self.objective == "both" else (self.objective,)

    @property
    def directions(self) -> tuple[Literal["maximize", "minimize"], ...]:
        """Direction in which each objective improves. `elbo` is the negative bound, a loss."""
        return tuple("maximize" if name == "disentanglement" else "minimize" for name in self.objectives)

    def describe(self, stages: Iterable[str]) -> list[str]:
        """Return a description of the sweep, line by line; `stages` describe what each trial does."""
        lines = [f"searched: {path}: {parameter.describe()}" for path, parameter in self.space.items()]
        lines.append(f"{self.trials} trials, ranked by {' and '.join(self.objectives)}, each of:")
        lines += stages
        if self.promoted and self.steps_fraction < 1:
            lines.append(f"then the best {self.promoted} with all steps")
        return lines


def read_sweep(path: Path) -> Sweep:
    """Return the sweep in a YAML file; former names of settings are replaced, with a warning.

    Raises:
        UserError: the file is not a valid sweep; the message names the path in it.
    """
    tree = read_mapping(path)
    unknown = [str(name) for name in tree if name not in Sweep.model_fields]
    if unknown:
        raise UserError(f"{path}: unknown key {unknown[0]}{settings.nearest(unknown[0], list(Sweep.model_fields))}")
    space = tree.get("space")
    if not isinstance(space, dict) or not space:
        raise UserError(
            f"{path}: space must be a section of dotted paths, such as `model.num_experts: {{choices: [24]}}`"
        )
    renamed: dict[str, str] = {}
    current = _with_current_paths(space, path, "space", renamed)
    parameters = {name: _parameter(path, name, value, renamed) for name, value in current.items()}
    warn_of_former_names(renamed)
    return settings.validated(Sweep, tree | {"space": parameters}, lambda name: f" (in {path})")


def _parameter(path: Path, name: str, value: object, renamed: dict[str, str]) -> Parameter:
    if not isinstance(value, dict):
        raise UserError(f"{path}: space.{name} is {value!r:.60}; it must be a range such as {{low: 0.1, high: 1}}")
    if isinstance(value.get("when"), dict):
        value = value | {"when": _with_current_paths(value["when"], path, f"space.{name}.when", renamed)}
    try:
        return settings.validated(Parameter, value, lambda _: "")
    except UserError as error:
        raise UserError(f"{path}: space.{name}: {error}") from None


def _with_current_paths(section: dict[Any, Any], path: Path, where: str, renamed: dict[str, str]) -> dict[str, Any]:
    """Return a section with the current paths of settings as keys; add the former ones found to `renamed`."""
    result: dict[str, Any] = {}
    for name, value in section.items():
        current = current_path(str(name), Recipe)
        if current in result:
            raise UserError(f"{path}: {where} has {current} twice, under its former and its current name")
        if current != name:
            renamed[str(name)] = current
        result[current] = value
    return result

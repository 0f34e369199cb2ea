"""The settings of a sweep: what is searched, how many trials, by which objective."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from cluster.cli import recipe_file, settings
from cluster.cli.settings import Section
from cluster.errors import UserError
from pipeline.tuning.space import Parameter


class Sweep(Section):
    """A search for better settings. Every trial is a complete run: schedules are fractions of it, however short."""

    objective: Literal["disentanglement", "elbo", "both"] = "disentanglement"
    """What ranks the trials, measured on validation identities. `disentanglement`: swaps judged (or, without labels,
    the cycle score); `elbo`: the un-annealed bound per pixel value; `both`: a Pareto front of the two."""
    trials: int = Field(default=20, ge=1)
    """Trials of the first round, failed ones included."""
    steps_fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of the recipe's steps that a trial of the first round trains: a complete, shorter run."""
    promoted: int = Field(default=0, ge=0)
    """How many of the best trials are trained again with all steps, in a second round that decides."""
    startup_trials: int = Field(default=8, ge=1)
    """Trials with values drawn at random before the sampler begins to learn from results."""
    concurrent_trials: int | None = Field(default=None, ge=1)
    """Trials trained at the same time; none means as many as the cluster holds."""
    judge_steps: int = Field(default=250, ge=1)
    """Optimiser steps of the judge that scores the trials; it learns once for the whole sweep."""
    pairs: int = Field(default=400, ge=2)
    """Pairs of validation clips whose codes are swapped."""
    seed: int = Field(default=0, ge=0)
    """Seed of the sampler. The recipe's own seed is that of every trial."""
    space: dict[str, Parameter]
    """The searched settings, by dotted path."""

    @property
    def names(self) -> tuple[str, ...]:
        """The objectives, by name."""
        return ("disentanglement", "elbo") if self.objective == "both" else (self.objective,)

    @property
    def directions(self) -> tuple[Literal["maximize", "minimize"], ...]:
        """Which way each objective is better. `elbo` is the negative bound, a loss."""
        return tuple("maximize" if name == "disentanglement" else "minimize" for name in self.names)


def read_sweep(path: Path) -> Sweep:
    """The sweep in a YAML file. UserError naming the path in it, for anything that is wrong."""
    tree = recipe_file.read_mapping(path)
    unknown = [str(name) for name in tree if name not in Sweep.model_fields]
    if unknown:
        raise UserError(f"{path}: unknown key {unknown[0]}{settings.nearest(unknown[0], list(Sweep.model_fields))}")
    space = tree.get("space")
    if not isinstance(space, dict) or not space:
        raise UserError(
            f"{path}: space must be a section of dotted paths, such as `model.num_experts: {{choices: [24]}}`"
        )
    parameters = {str(name): _parameter(path, str(name), value) for name, value in space.items()}
    return settings.validated(Sweep, tree | {"space": parameters}, lambda name: f" (in {path})")


def _parameter(path: Path, name: str, value: object) -> Parameter:
    if not isinstance(value, dict):
        raise UserError(f"{path}: space.{name} is {value!r:.60}; it must be a range such as {{low: 0.1, high: 1}}")
    try:
        return settings.validated(Parameter, value, lambda _: "")
    except UserError as error:
        raise UserError(f"{path}: space.{name}: {error}") from None

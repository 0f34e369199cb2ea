"""The space that a sweep searches: settings of the recipe by dotted path, checked against the models before any trial.

space:
  training.stage1.annealing.static.end: {low: 0.02, high: 1.0, log: true}
  training.stage1.annealing.pose.knots.1.1: {low: 0.05, high: 4.0, log: true}   # second knot, its weight
  model.num_experts: {choices: [24, 48, 96]}
  model.static_prior_scale: {low: 0.05, high: 0.5, when: {model.static_groups: 12}}
"""

import copy
import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from pydantic import Field, ValidationError, model_validator

from cluster.cli.settings import Section, nearest, paths
from cluster.errors import UserError
from pipeline.recipe import Recipe

Values = dict[str, Any]
"""Dotted path to the value that a trial has there."""

MAX_CHECKED = 2000
"""Maximum number of combinations of values that are validated before a sweep starts."""
_SEARCHABLE = ("model.", "training.stage1.", "training.stage2.")
_NOT_SEARCHABLE = ("training.stage1.steps", "training.stage2.steps")


class Parameter(Section):
    """One searched setting: a numeric range or a list of choices."""

    low: float | None = None
    """Smallest value."""
    high: float | None = None
    """Largest value."""
    log: bool = False
    """Sample the logarithm of the value, for settings whose ratios matter, not their differences."""
    step: float | None = Field(default=None, gt=0)
    """Values are low, low + step, ... (not with log); none means every number, or every integer."""
    choices: tuple[Any, ...] | None = None
    """The values to choose from, instead of a range."""
    when: dict[str, Any] = Field(default_factory=dict)
    """Search this setting only where other searched settings have these values; otherwise use the recipe's value."""

    @model_validator(mode="after")
    def _is_range_or_choices(self) -> "Parameter":
        if (self.choices is None) == (self.low is None or self.high is None):
            raise ValueError("it needs either low and high, or choices")
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log or self.step is not None:
                raise ValueError("low, high, log and step cannot be combined with choices")
            if not self.choices:
                raise ValueError("choices is empty")
        elif self.low is not None and self.high is not None:
            if not self.low < self.high:
                raise ValueError(f"the range from {self.low:g} to {self.high:g} is empty")
            if self.log and not self.low > 0:
                raise ValueError(f"low is {self.low:g}; with log it must be above 0")
            if self.log and self.step is not None:
                raise ValueError("step cannot be combined with log")
        return self

    def describe(self) -> str:
        """Return the range or the choices in a few words."""
        if self.choices is not None:
            text = "one of " + ", ".join(map(str, self.choices))
        else:
            text = f"{self.low:g} to {self.high:g}{', log scale' if self.log else ''}"
        return text + "".join(f", where {path} is {value}" for path, value in self.when.items())


class Suggester(Protocol):
    """Supplies the values of a trial, as an Optuna trial does."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Return a number from a range."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Return an integer from a range."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Return one of the choices."""


class Space:
    """The searched settings of a recipe.

    Args:
        parameters: by dotted path; an integer in the path is an index into a list.
        recipe: supplies every other setting.

    Raises:
        UserError: naming the path, for an unknown setting, a condition that can never hold, or values that the models
            reject.
    """

    def __init__(self, parameters: Mapping[str, Parameter], recipe: Recipe) -> None:
        if not parameters:
            raise UserError("space is empty; name at least one setting to search")
        self._tree = recipe.model_dump(mode="python")
        for path in parameters:
            _check_path(path, self._tree)
        self.parameters = dict(_in_order_of_conditions(parameters))
        self._is_integer = {path: _is_integer(_get(self._tree, path)) for path in self.parameters}
        for path, parameter in self.parameters.items():
            bounds = (parameter.low, parameter.high, parameter.step)
            if self._is_integer[path] and any(bound is not None and bound != int(bound) for bound in bounds):
                raise UserError(f"space: {path} is an integer, so low, high and step must be integers too")
        self._check_values()

    def suggest(self, trial: Suggester, parameter_name: Callable[[str], str] = str) -> Values:
        """Return the values of a trial.

        Args:
            trial: supplies them; usually an Optuna trial.
            parameter_name: maps the path of a setting to the name by which `trial` knows it.
        """
        values: Values = {}
        for path, parameter in self.parameters.items():
            if not _condition_holds(parameter, values):
                continue
            name = parameter_name(path)
            if parameter.choices is not None:
                # Optuna stores only scalars as choices; of anything else, the index is stored.
                scalar = all(isinstance(choice, bool | int | float | str | None) for choice in parameter.choices)
                offered = parameter.choices if scalar else range(len(parameter.choices))
                chosen = trial.suggest_categorical(name, tuple(offered))
                values[path] = chosen if scalar else parameter.choices[chosen]
            elif self._is_integer[path]:
                low, high = self._bounds(path)
                values[path] = trial.suggest_int(name, low, high, step=int(parameter.step or 1), log=parameter.log)
            else:
                low, high = self._bounds(path)
                values[path] = trial.suggest_float(name, low, high, step=parameter.step, log=parameter.log)
        return values

    def recipe(self, values: Values, steps_fraction: float = 1.0) -> Recipe:
        """Return the recipe with `values` at their paths and all steps multiplied by `steps_fraction`.

        Raises:
            ValueError: the models reject the values (pydantic's ValidationError).
        """
        tree = copy.deepcopy(self._tree)
        for path, value in values.items():
            tree = _replace(tree, path.split("."), value)
        for stage in ("stage1", "stage2"):
            for name in ("steps", "warmup_steps"):
                all_steps = tree["training"][stage][name]
                tree["training"][stage][name] = max(1, round(all_steps * steps_fraction)) if all_steps else 0
        return Recipe.model_validate(tree)

    def _check_values(self) -> None:
        """Raise UserError for the first combination of choices and bounds that the models reject."""
        for values in self._combinations():
            try:
                self.recipe(values)
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                section = ".".join(str(part) for part in first["loc"])
                reason = " ".join(first["msg"].removeprefix("Value error, ").split())
                # Name the searched values of the section that raised; if it has none, all of them.
                suspects = {path: value for path, value in values.items() if path.startswith(section)} or values
                named = ", ".join(f"{path} {value}" for path, value in suspects.items())
                raise UserError(f"space: {named} would be rejected: {section}: {reason}") from None

    def _combinations(self) -> Iterator[Values]:
        """Yield combinations of every setting's choices or bounds that satisfy the conditions; a sample if many."""
        extremes = {path: parameter.choices or self._bounds(path) for path, parameter in self.parameters.items()}
        total = 1
        for options in extremes.values():
            total *= len(options)
        if total <= MAX_CHECKED:
            drawn: Iterator[tuple[Any, ...]] = itertools.product(*extremes.values())
        else:
            generator = random.Random(0)
            drawn = (tuple(generator.choice(options) for options in extremes.values()) for _ in range(MAX_CHECKED))
        for combination in drawn:
            values: Values = {}
            for path, value in zip(extremes, combination, strict=True):
                if _condition_holds(self.parameters[path], values):
                    values[path] = value
            yield values

    def _bounds(self, path: str) -> tuple[Any, ...]:
        bounds = (self.parameters[path].low, self.parameters[path].high)
        return tuple(int(bound) if self._is_integer[path] else bound for bound in bounds if bound is not None)


def _check_path(path: str, tree: Mapping[str, Any]) -> None:
    known = [name for name in paths(Recipe) if name.startswith(_SEARCHABLE) and name not in _NOT_SEARCHABLE]
    setting = ".".join(part for part in path.split(".") if not part.isdigit())
    if path in _NOT_SEARCHABLE:
        raise UserError(f"space: {path} cannot be searched: trials of different length are not comparable")
    if setting not in known:
        raise UserError(f"space: unknown path {path}{nearest(setting, known)}")
    try:
        value = _get(tree, path)
    except (KeyError, IndexError, TypeError):
        raise UserError(f"space: {path} does not exist; {setting} is {_get(tree, setting)!r:.100}") from None
    if path != setting and isinstance(value, list | tuple | dict):
        raise UserError(f"space: {path} is {value!r:.60}; extend the path to one number in it")


def _in_order_of_conditions(parameters: Mapping[str, Parameter]) -> Iterator[tuple[str, Parameter]]:
    """Yield the parameters, each after those that its condition names.

    Raises:
        UserError: a condition can never hold.
    """
    for path, parameter in parameters.items():
        for other, value in parameter.when.items():
            if other not in parameters:
                raise UserError(f"space: {path} depends on {other}, which is not searched")
            choices = parameters[other].choices
            if choices is None or value not in choices:
                raise UserError(f"space: {path} depends on {other} being {value!r}, which is not among its choices")
    remaining = dict(parameters)
    while remaining:
        ready = [path for path, parameter in remaining.items() if not remaining.keys() & parameter.when.keys()]
        if not ready:
            raise UserError(f"space: the conditions of {', '.join(remaining)} depend on each other")
        for path in ready:
            yield path, remaining.pop(path)


def _condition_holds(parameter: Parameter, values: Values) -> bool:
    return all(path in values and values[path] == value for path, value in parameter.when.items())


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _get(tree: Any, path: str) -> Any:
    """Return the value at a dotted path."""
    for part in path.split("."):
        tree = tree[int(part)] if isinstance(tree, list | tuple) else tree[part]
    return tree


def _replace(tree: Any, parts: list[str], value: Any) -> Any:
    """Return `tree` with `value` at the path that `parts` make."""
    if not parts:
        return value
    if isinstance(tree, list | tuple):
        return [_replace(one, parts[1:], value) if index == int(parts[0]) else one for index, one in enumerate(tree)]
    return {**tree, parts[0]: _replace(tree[parts[0]], parts[1:], value)}

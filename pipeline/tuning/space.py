"""What a sweep searches: settings of the recipe by their dotted path, checked against the models before any trial.

space:
  training.stage1.annealing.static.end: {low: 0.02, high: 1.0, log: true}
  training.stage1.annealing.pose.knots.1.1: {low: 0.05, high: 4.0, log: true}   # second knot, its weight
  model.num_experts: {choices: [24, 48, 96]}
  model.static_prior_scale: {low: 0.05, high: 0.5, when: {model.static_groups: 12}}
"""

import copy
import itertools
import random
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from pydantic import Field, ValidationError, model_validator

from cluster.cli.settings import Section, nearest, paths
from cluster.errors import UserError
from pipeline.recipe import Recipe

Values = dict[str, Any]
"""Dotted path to the value that a trial has there."""

CHECKED = 2000
"""Most combinations of values that are tried on the models before a sweep starts."""
_SEARCHED = ("model.", "training.stage1.", "training.stage2.")
_SPOILT = ("training.stage1.steps", "training.stage2.steps")


class Parameter(Section):
    """One setting that is searched: a range of numbers, or a list of choices."""

    low: float | None = None
    """Smallest value."""
    high: float | None = None
    """Largest value."""
    log: bool = False
    """Search the logarithm of the value: for what matters by factors, not by differences."""
    step: float | None = Field(default=None, gt=0)
    """Values are low, low + step, ... (not with log); none means every value, or every whole number."""
    choices: tuple[Any, ...] | None = None
    """The values to choose from, instead of a range."""
    when: dict[str, Any] = Field(default_factory=dict)
    """Search it only where other searched settings have these values; elsewhere it keeps the recipe's value."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Parameter":
        if (self.choices is None) == (self.low is None or self.high is None):
            raise ValueError("it needs either low and high, or choices")
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log or self.step is not None:
                raise ValueError("low, high, log and step do not go with choices")
            if not self.choices:
                raise ValueError("choices is empty")
        elif self.low is not None and self.high is not None:
            if not self.low < self.high:
                raise ValueError(f"the range from {self.low:g} to {self.high:g} is empty")
            if self.log and not self.low > 0:
                raise ValueError(f"low is {self.low:g}; with log it must be above 0")
            if self.log and self.step is not None:
                raise ValueError("step does not go with log")
        return self

    def describe(self) -> str:
        """What is searched, in a few words."""
        if self.choices is not None:
            text = "of " + ", ".join(map(str, self.choices))
        else:
            text = f"from {self.low:g} to {self.high:g}{', by factors' if self.log else ''}"
        return text + "".join(f", where {path} is {value}" for path, value in self.when.items())


class Trial(Protocol):
    """What is asked of an Optuna trial."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number of a range."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number of a range."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """One of the choices."""


class Space:
    """The searched settings of a recipe.

    Args:
        parameters: by dotted path; a whole number in the path is a place in a list.
        recipe: gives every other setting.

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
        self._whole = {path: _is_whole(path, self._tree) for path in self.parameters}
        for path, parameter in self.parameters.items():
            bounds = (parameter.low, parameter.high, parameter.step)
            if self._whole[path] and any(bound is not None and bound != int(bound) for bound in bounds):
                raise UserError(f"space: {path} takes whole numbers, so low, high and step must be whole too")
        self._check_values()

    def suggest(self, trial: Trial) -> Values:
        """Values for a trial, asked of Optuna."""
        values: Values = {}
        for path, parameter in self.parameters.items():
            if not _holds(parameter, values):
                continue
            if parameter.choices is not None:
                # Optuna knows only plain values as choices: lists are chosen by their place.
                plain = all(isinstance(choice, bool | int | float | str | None) for choice in parameter.choices)
                offered = parameter.choices if plain else range(len(parameter.choices))
                chosen = trial.suggest_categorical(path, tuple(offered))
                values[path] = chosen if plain else parameter.choices[chosen]
            elif self._whole[path]:
                low, high = self._ends(path)
                values[path] = trial.suggest_int(path, low, high, step=int(parameter.step or 1), log=parameter.log)
            else:
                low, high = self._ends(path)
                values[path] = trial.suggest_float(path, low, high, step=parameter.step, log=parameter.log)
        return values

    def recipe(self, values: Values, steps_fraction: float = 1.0) -> Recipe:
        """The recipe with `values` in their places, and all steps multiplied by `steps_fraction`.

        Raises ValueError (pydantic's) for values that the models reject.
        """
        tree = copy.deepcopy(self._tree)
        for path, value in values.items():
            tree = _with(tree, path.split("."), value)
        for stage in ("stage1", "stage2"):
            for name in ("steps", "warmup_steps"):
                whole = tree["training"][stage][name]
                tree["training"][stage][name] = max(1, round(whole * steps_fraction)) if whole else 0
        return Recipe.model_validate(tree)

    def _check_values(self) -> None:
        """UserError for the first combination of choices and ends of ranges that the models reject."""
        for values in self._combinations():
            try:
                self.recipe(values)
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                section = ".".join(str(part) for part in first["loc"])
                what = " ".join(first["msg"].removeprefix("Value error, ").split())
                # The rejected values are those of the section that complains, as far as they are searched.
                blamed = {path: value for path, value in values.items() if path.startswith(section)} or values
                named = ", ".join(f"{path} {value}" for path, value in blamed.items())
                raise UserError(f"space: {named} would be rejected: {section}: {what}") from None

    def _combinations(self) -> Iterator[Values]:
        """Every setting's extreme values, one at a time and then together, as far as conditions allow."""
        extremes = {path: parameter.choices or self._ends(path) for path, parameter in self.parameters.items()}
        total = 1
        for options in extremes.values():
            total *= len(options)
        if total <= CHECKED:
            drawn: Iterator[tuple[Any, ...]] = itertools.product(*extremes.values())
        else:
            generator = random.Random(0)
            drawn = (tuple(generator.choice(options) for options in extremes.values()) for _ in range(CHECKED))
        for combination in drawn:
            values: Values = {}
            for path, value in zip(extremes, combination, strict=True):
                if _holds(self.parameters[path], values):
                    values[path] = value
            yield values

    def _ends(self, path: str) -> tuple[Any, ...]:
        ends = (self.parameters[path].low, self.parameters[path].high)
        return tuple(int(end) if self._whole[path] else end for end in ends if end is not None)


def _check_path(path: str, tree: Mapping[str, Any]) -> None:
    known = [name for name in paths(Recipe) if name.startswith(_SEARCHED) and name not in _SPOILT]
    plain = ".".join(part for part in path.split(".") if not part.isdigit())
    if path in _SPOILT:
        raise UserError(f"space: {path} cannot be searched: trials of different length do not compare")
    if plain not in known:
        raise UserError(f"space: unknown path {path}{nearest(plain, known)}")
    try:
        value = _at(tree, path.split("."))
    except (KeyError, IndexError, TypeError):
        raise UserError(f"space: {path} leads to nothing; {plain} is {_at(tree, plain.split('.'))!r:.100}") from None
    if path != plain and isinstance(value, list | tuple | dict):
        raise UserError(f"space: {path} is {value!r:.60}; go on to one number in it")


def _in_order_of_conditions(parameters: Mapping[str, Parameter]) -> Iterator[tuple[str, Parameter]]:
    """The parameters, each after those that its condition names. UserError for a condition that can never hold."""
    for path, parameter in parameters.items():
        for other, value in parameter.when.items():
            if other not in parameters:
                raise UserError(f"space: {path} depends on {other}, which is not searched")
            choices = parameters[other].choices
            if choices is None or value not in choices:
                raise UserError(f"space: {path} depends on {other} being {value!r}, which is not among its choices")
    left = dict(parameters)
    while left:
        ready = [path for path, parameter in left.items() if not left.keys() & parameter.when.keys()]
        if not ready:
            raise UserError(f"space: the conditions of {', '.join(left)} depend on each other")
        for path in ready:
            yield path, left.pop(path)


def _holds(parameter: Parameter, values: Values) -> bool:
    return all(path in values and values[path] == value for path, value in parameter.when.items())


def _is_whole(path: str, tree: Mapping[str, Any]) -> bool:
    value = _at(tree, path.split("."))
    return isinstance(value, int) and not isinstance(value, bool)


def _at(tree: Any, parts: list[str]) -> Any:
    for part in parts:
        tree = tree[int(part)] if isinstance(tree, list | tuple) else tree[part]
    return tree


def _with(tree: Any, parts: list[str], value: Any) -> Any:
    """`tree` with `value` at the place that `parts` lead to."""
    if not parts:
        return value
    if isinstance(tree, list | tuple):
        return [_with(one, parts[1:], value) if place == int(parts[0]) else one for place, one in enumerate(tree)]
    return {**tree, parts[0]: _with(tree[parts[0]], parts[1:], value)}

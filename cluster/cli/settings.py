"""Settings as trees: the fields of a command, the values of a recipe, and one-line errors for invalid input in either.

A settings class is a pydantic model or a standard dataclass, nested to any depth. Values travel as plain dicts (read
from YAML or from the command line) until one call validates them, so that both sources are checked by the same code.
"""

import ast
import dataclasses
import difflib
import functools
import inspect
import itertools
import math
import textwrap
import typing
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from cluster.cli.paths import Location
from cluster.errors import UserError

OTHER_SECTIONS = frozenset({"seed", "source", "prepare", "shards", "model", "training", "evaluation", "tune"})
"""Top-level keys that every recipe may hold. A command ignores those that are not its own."""

REQUIRED = object()
"""Marks a setting without a default in a tree of defaults."""

MAX_INTEGER = 2**63 - 1
"""Largest seed: what generators can hold."""

MAX_NUMBER = 10**9
"""Largest number of any other setting. Above it, times overflow timers, and counts memory."""

M = TypeVar("M", bound=BaseModel)
Tree = dict[str, Any]
"""Settings as nested dicts."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One field of a settings class."""

    annotation: Any
    """Its type, without `Annotated`."""
    default: Any
    """Its default value, or `REQUIRED`."""

    @property
    def section(self) -> type | None:
        """The nested settings class if this field is a section, otherwise None."""
        return self.annotation if is_section(self.annotation) else None


class Section(BaseModel):
    """A section of a recipe: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Controls(BaseModel):
    """Fields that every command has and no recipe may hold."""

    config: tuple[Location, ...] = ()
    """Recipes, whose values override the defaults: names that `vdsm recipes` lists, or YAML files. Of several, later
    ones override earlier ones; options override all."""
    print_config: bool = False
    """Print the resulting recipe as YAML, in the format that --config reads, and exit."""
    dry_run: bool = False
    """Check everything that can be checked without doing the work, report what would be done, and exit."""


def is_section(annotation: Any) -> bool:
    """Return whether a type is a settings class."""
    return isinstance(annotation, type) and (issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation))


@functools.cache
def settings_of(cls: type) -> dict[str, Setting]:
    """Return the fields of a settings class by name, in order of declaration."""
    hints = typing.get_type_hints(cls)
    found: dict[str, Setting] = {}
    if issubclass(cls, BaseModel):
        for name, field in cls.model_fields.items():
            default = REQUIRED if field.is_required() else field.get_default(call_default_factory=True)
            found[name] = Setting(hints[name], default)
    else:
        for one in dataclasses.fields(typing.cast(Any, cls)):
            default = one.default
            if default is dataclasses.MISSING:
                default = REQUIRED if one.default_factory is dataclasses.MISSING else one.default_factory()
            found[one.name] = Setting(hints[one.name], default)
    return found


@functools.cache
def descriptions(cls: type) -> dict[str, str]:
    """Return the docstring below each field of a class, inherited fields included; empty without source code."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not is_section(base) or base is BaseModel:
            continue
        try:
            source = inspect.getsource(base)
        except OSError:
            continue
        body = typing.cast(ast.ClassDef, ast.parse(textwrap.dedent(source)).body[0]).body
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                found[field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return found


def defaults(cls: type, instance: object = REQUIRED) -> Tree:
    """Return all fields of a class as a tree, with the values of `instance` or else the defaults of the class."""
    tree: Tree = {}
    for name, setting in settings_of(cls).items():
        value = setting.default if instance is REQUIRED else getattr(instance, name)
        tree[name] = defaults(setting.section, value) if setting.section is not None else value
    return tree


def merge(base: Tree, override: Tree) -> Tree:
    """Return `base` updated with the values of `override`; sections are merged key by key."""
    merged = dict(base)
    for name, value in override.items():
        below = merged.get(name)
        merged[name] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def prune(tree: Tree) -> Tree:
    """Return a copy without the settings that have no value yet."""
    return {
        name: prune(value) if isinstance(value, dict) else value
        for name, value in tree.items()
        if value is not REQUIRED
    }


def holds(tree: Tree, path: str) -> bool:
    """Return whether a tree has a value or a section at a dotted path."""
    node: Any = tree
    for part in path.split("."):
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def paths(cls: type, prefix: str = "") -> list[str]:
    """Return the dotted paths of all settings of a class, sections themselves excluded."""
    found: list[str] = []
    for name, setting in settings_of(cls).items():
        found += [prefix + name] if setting.section is None else paths(setting.section, f"{prefix}{name}.")
    return found


def option(path: str) -> str:
    """Return the command-line option of a dotted path."""
    return "--" + path.replace("_", "-")


def nearest(name: str, among: list[str]) -> str:
    """Return `; did you mean X?` with the most similar name, or all names if none is similar and they are few."""
    close = difflib.get_close_matches(name, among, n=1, cutoff=0.5)
    if not close:  # a setting named without its section
        close = [path for path in among if path.rpartition(".")[2] == name.rpartition(".")[2]][:1]
    if close:
        return f"; did you mean {close[0]}?"
    return f"; valid names are {', '.join(among)}" if len(among) <= 12 else ""


def validated(cls: type[M], tree: Tree, origin: Callable[[str], str]) -> M:
    """Return the validated settings object of a tree.

    Args:
        origin: maps a dotted path to the source of its value: a text such as ` (in a.yaml)`, or the empty string.

    Raises:
        UserError: naming the dotted path, the value and the constraint that it violates.
    """
    try:
        found = cls.model_validate(prune(tree))
    except ValidationError as error:
        _explain(cls, error, origin)
    except UnicodeEncodeError:  # of pydantic, which puts the value into a message
        path, value = next(_no_texts(tree), ("", ""))
        raise UserError(f"{path} is {value!a}; it must be valid text, in UTF-8{origin(path)}") from None
    check_numbers(found, origin)
    return found


def _no_texts(tree: Tree, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted path and the value of each setting that is not valid text: file names may hold any byte."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _no_texts(value, f"{prefix}{name}.")
        for text in value if isinstance(value, list | tuple) else [value]:
            if isinstance(text, str) and text != text.encode(errors="ignore").decode():
                yield prefix + name, text


def check_numbers(settings: BaseModel, origin: Callable[[str], str]) -> None:
    """Check what types and bounds of single settings let pass.

    Raises:
        UserError: a setting is not a number, or too large for anything that computes with it.
    """
    for path in paths(type(settings)):
        for value in _numbers(functools.reduce(getattr, path.split("."), settings)):
            if wanted := _violated(value, is_seed=path.rpartition(".")[2] == "seed"):
                raise UserError(f"{path} is {value!s:.80}; it must be {wanted}{origin(path)}")


def _numbers(value: object) -> list[int | float]:
    """Return the numbers in the value of a setting."""
    if isinstance(value, tuple | list):
        return [number for one in value for number in _numbers(one)]
    return [value] if isinstance(value, int | float) else []


def _violated(value: int | float, *, is_seed: bool) -> str:
    """Return what a number must be and is not; empty if it may be used."""
    if isinstance(value, float):
        if math.isnan(value):  # it passes any bound that is not met by `x < bound`
            return "a number"
        return "" if abs(value) <= MAX_NUMBER else f"a finite number of at most {MAX_NUMBER:,}"
    if not -MAX_INTEGER - 1 <= value <= MAX_INTEGER:
        return "an integer of 64 bits"
    return "" if is_seed or abs(value) <= MAX_NUMBER else f"at most {MAX_NUMBER:,}"


def _explain(cls: type[BaseModel], error: ValidationError, origin: Callable[[str], str]) -> NoReturn:
    first, *others = error.errors(include_url=False)
    names = [str(part) for part in first["loc"] if not isinstance(part, int)]
    path, message = ".".join(names), first["msg"]
    if first["type"] == "missing":
        raise UserError(f"{path} has no value; give it with {option(path)}")
    if first["type"] == "value_error":
        # Raised by the class itself: the message begins with the name of the field, relative to the class.
        message = " ".join(message.removeprefix("Value error, ").split())
        begin = message.partition(" ")[0]
        full = ".".join([*names, begin])
        if full in paths(cls):
            path, message = full, full + message.removeprefix(begin)
        elif path:
            message = f"{path}: {message}"
    else:
        wanted = message.replace("Input should be", "it must be").partition(", unable to parse")[0]
        wanted = wanted if wanted.startswith("it must") else wanted[:1].lower() + wanted[1:]
        shown = first["input"] if isinstance(first["input"], str) else repr(first["input"])
        message = f"{path} is {shown:.80}; {wanted}"
    more = f"; {len(others)} more error{'s' if others[1:] else ''}" if others else ""
    # A message on several fields of a section names one of them, and the invalid value may be that of another.
    source = origin(path) or origin(".".join(names))
    raise UserError(f"{message}{source}{more}")

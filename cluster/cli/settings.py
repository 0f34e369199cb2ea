"""Settings as trees: what a command can be told, what a recipe says, and one-line answers to mistakes in either.

A settings class is a pydantic model or a standard dataclass, nested to any depth. Everything here goes from plain dicts
(read from YAML, or given on the command line) to one validated object, so that both ways are checked by the same code.
"""

import ast
import dataclasses
import difflib
import functools
import inspect
import itertools
import textwrap
import types
import typing
from pathlib import Path
from typing import Any, NoReturn, TypeVar, Union

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from cluster.errors import UserError

OTHER_SECTIONS = frozenset({"seed", "source", "shards", "model", "training", "evaluation", "tune"})
"""Top-level settings that a recipe may hold although a command does not read them: evaluation reads only its own."""

REQUIRED = object()
"""Stands in a tree of defaults where there is none."""

M = TypeVar("M", bound=BaseModel)
Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Setting:
    """One field of a settings class."""

    annotation: Any
    """Its type, without `Annotated`."""
    default: Any
    """Its default value, or `REQUIRED`."""

    @property
    def section(self) -> type | None:
        """The nested settings class, where this is a section of others."""
        return self.annotation if is_section(self.annotation) else None


class Section(BaseModel):
    """A part of a recipe: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Controls(BaseModel):
    """Fields of every command that say what to do with its settings; no recipe holds them."""

    config: Path | None = None
    """Recipe: a YAML file whose values replace the defaults. Options replace both."""
    print_config: bool = False
    """Print the resulting recipe as YAML, which --config takes again, and exit."""
    dry_run: bool = False
    """Check everything that can be checked without the work, say what would be done, and exit."""


def is_section(annotation: Any) -> bool:
    """Whether a type is a settings class."""
    return isinstance(annotation, type) and (issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation))


@functools.cache
def settings_of(cls: type) -> dict[str, Setting]:
    """The fields of a settings class, in order."""
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
    """What the string below each field of a class says, inherited ones included; nothing where the source is absent."""
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
    """All fields of a class as nested dicts, holding the values of `instance` or else the class's own defaults."""
    tree: Tree = {}
    for name, setting in settings_of(cls).items():
        value = setting.default if instance is REQUIRED else getattr(instance, name)
        tree[name] = defaults(setting.section, value) if setting.section is not None else value
    return tree


def merge(below: Tree, above: Tree) -> Tree:
    """`below` with the values of `above` in their places; sections are merged key by key."""
    merged = dict(below)
    for name, value in above.items():
        under = merged.get(name)
        merged[name] = merge(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged


def prune(tree: Tree) -> Tree:
    """A copy without the settings that have no value yet."""
    return {
        name: prune(value) if isinstance(value, dict) else value
        for name, value in tree.items()
        if value is not REQUIRED
    }


def paths(cls: type, prefix: str = "") -> list[str]:
    """Dotted paths of all settings below a class, sections excluded."""
    found: list[str] = []
    for name, setting in settings_of(cls).items():
        found += [prefix + name] if setting.section is None else paths(setting.section, f"{prefix}{name}.")
    return found


def nearest(name: str, among: list[str]) -> str:
    """`; did you mean X?` for the most similar name, or a list of the names where none is similar."""
    close = difflib.get_close_matches(name, among, n=1, cutoff=0.5)
    if not close:  # a setting named without its section
        close = [path for path in among if path.rpartition(".")[2] == name.rpartition(".")[2]][:1]
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known are {', '.join(among)}" if len(among) <= 12 else ""


def read_recipe(path: Path, cls: type) -> Tree:
    """What a YAML recipe sets, as nested dicts whose keys are all fields of `cls`.

    Raises:
        UserError: the file is missing or no YAML mapping, or has a key that `cls` does not know.
    """
    tree = read_mapping(path)
    known = settings_of(cls)
    tree = {name: value for name, value in tree.items() if name in known or name not in OTHER_SECTIONS}
    _check_keys(tree, cls, path)
    return tree


def read_mapping(path: Path) -> Tree:
    """The content of a YAML file. UserError if it is missing, or is no YAML mapping without double keys."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"cannot read the recipe {path}: {reason}; give an existing YAML file to --config") from None
    try:
        tree = yaml.load(text, Loader=_UniqueKeys)  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error)
        raise UserError(f"{path}{line} is not valid YAML: {problem}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{path} holds {tree!r:.60}, not a recipe; it must be a mapping such as `seed: 0`")
    return tree


def _check_keys(tree: Tree, cls: type, path: Path, prefix: str = "") -> None:
    known = settings_of(cls)
    for name, value in tree.items():
        dotted = f"{prefix}{name}"
        if name not in known:
            among = list(known) if prefix else [*known, *sorted(OTHER_SECTIONS - set(known))]
            raise UserError(f"{path}: unknown key {dotted}{nearest(str(name), among)}")
        section = known[name].section
        if section is not None and not isinstance(value, dict):
            first = next(iter(settings_of(section)))
            raise UserError(f"{path}: {dotted} is {value!r:.60}; it must be a section with keys such as {first}")
        if section is not None:
            _check_keys(value, section, path, f"{dotted}.")
        elif isinstance(value, int) and str(value) in typing.get_args(known[name].annotation):
            tree[name] = str(value)  # YAML reads `stages: 1` as a number
        elif isinstance(value, bool) and not _allows_bool(known[name].annotation):
            # pydantic would take `yes` for 1
            raise UserError(f"{path}: {dotted} is {str(value).lower()}; it must not be true or false")


def _allows_bool(annotation: Any) -> bool:
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return any(_allows_bool(option) for option in typing.get_args(annotation))
    return annotation is bool or (typing.get_origin(annotation) is typing.Literal)


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key given twice is an error, not a value that is silently lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {name} appears twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def validated(cls: type[M], tree: Tree, origin: typing.Callable[[str], str]) -> M:
    """The settings object that a tree describes.

    Args:
        origin: says, for a dotted path, where its value came from: a text such as ` (in a.yaml)`, or nothing.

    Raises:
        UserError: naming the dotted path, the value and what it must be.
    """
    try:
        return cls.model_validate(prune(tree))
    except ValidationError as error:
        _explain(cls, error, origin)


def _explain(cls: type[BaseModel], error: ValidationError, origin: typing.Callable[[str], str]) -> NoReturn:
    first, *others = error.errors(include_url=False)
    names = [str(part) for part in first["loc"] if not isinstance(part, int)]
    path, message = ".".join(names), first["msg"]
    if first["type"] == "missing":
        raise UserError(f"{path} has no value; give it with {option(path)}")
    if first["type"] == "value_error":
        # From the class itself: its message begins with the name of the field, relative to the class.
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
    more = f"; {len(others)} more mistake{'s follow' if others[1:] else ' follows'}" if others else ""
    raise UserError(f"{message}{origin(path)}{more}")


def option(path: str) -> str:
    """The command-line option of a dotted path."""
    return "--" + path.replace("_", "-")

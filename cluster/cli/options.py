"""Dotted command-line options for every field of a settings class, parsed by tyro.

tyro parses the names, groups the arguments and prints the help. Values stay text here and are validated together with
those of the recipe (`cluster.cli.settings`), so that both give the same one-line error.
"""

import inspect
import itertools
import types
import typing
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Union

import tyro
from pydantic import BaseModel
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from cluster.cli import help_page
from cluster.cli.settings import REQUIRED, Controls, Tree, descriptions, nearest, option, paths, settings_of
from cluster.cli.shipped_recipes import shipped_recipes, shipped_sweeps
from cluster.errors import UserError


def value_of(name: str, argv: Sequence[str]) -> str | None:
    """Return the value of one option, without parsing the others; None if it is not given."""
    found = None
    for arg, following in itertools.zip_longest(argv, argv[1:], fillvalue=""):
        if arg == f"--{name}":
            found = following
        elif arg.startswith(f"--{name}="):
            found = arg.partition("=")[2]
    if found is not None and (not found or found.startswith("--")):
        raise UserError(f"--{name} needs a value")
    return found


def values_of(name: str, argv: Sequence[str]) -> list[str]:
    """Return all values of one option, which may be given several times and with several values each."""
    found: list[str] = []
    for position, arg in enumerate(argv):
        if arg != f"--{name}" and not arg.startswith(f"--{name}="):
            continue
        values = [arg.partition("=")[2]] if "=" in arg else []
        values += itertools.takewhile(lambda value: not value.startswith("--"), argv[position + 1 :])
        if not all(values or [""]):
            raise UserError(f"--{name} needs a value")
        found += values
    return found


def read(command: type[BaseModel], argv: Sequence[str], prog: str, shown: Tree) -> Tree:
    """Return the settings given as options: a tree of strings, or of lists of strings for settings of several values.

    Args:
        command: class of the command.
        argv: arguments after the name of the command.
        prog: name of the command for the help.
        shown: tree of the values that the help shows as defaults.

    Raises:
        UserError: unknown option, or wrong number of values.
    """
    _check_names(command, argv)
    description = " ".join((command.__doc__ or "").split())
    hidden: frozenset[str] = frozenset()
    if help_page.is_requested(argv):
        hidden = help_page.hidden_paths(command, argv)
        description = f"{description}\n\n{help_page.footer(command, argv)}"
    given, rest = tyro.cli(
        branch(command, shown, hidden),
        args=["--help" if arg == help_page.ALL else arg for arg in argv],
        prog=prog,
        description=description,
        registry=section_registry(),
        return_unknown_args=True,
    )
    if rest:
        raise UserError(f"unexpected argument {rest[0]!r}; options look like --seed 1 or --model.num-experts 24")
    tree = typing.cast(Tree, given)
    return _converted(command, tree)


def _check_names(command: type[BaseModel], argv: Sequence[str]) -> None:
    known = paths(command)
    for arg in argv:
        if not arg.startswith("--") or arg in ("--", "--help", help_page.ALL):
            continue
        path = arg[2:].partition("=")[0].replace("-", "_")
        parent, _, last = path.rpartition(".")
        positive = f"{parent}.{last.removeprefix('no_')}".lstrip(".")
        if path not in known and positive not in known:
            suggestion = nearest(option(path), [option(name) for name in known])
            raise UserError(f"unknown option {arg.partition('=')[0]}{suggestion}")


class _Branch:
    """A section as tyro sees it: one subclass per section, with its fields and the defaults shown in the help."""

    cls: type
    shown: Tree
    hidden: frozenset[str]
    """Dotted paths, relative to the section, of the settings that the help does not list."""
    choices: bool
    """Whether tyro knows the accepted values, as completion needs. It would report others in many lines."""


class _Default:
    """Placeholder for a value that is not given on the command line; holds the default shown in the help."""

    def __init__(self, value: Any) -> None:
        self.value = value


def branch(cls: type, shown: Tree, hidden: frozenset[str] = frozenset(), *, choices: bool = False) -> type[_Branch]:
    """Return a settings class as a type that tyro parses, with `section_registry`.

    Args:
        cls: the settings class.
        shown: tree of the values that the help shows as defaults.
        hidden: dotted paths of the settings that the help does not list.
        choices: declare the accepted values, which completion needs; tyro reports others in many lines.
    """
    fields = {"cls": cls, "shown": shown, "hidden": hidden, "choices": choices, "__doc__": cls.__doc__}
    return type(cls.__name__, (_Branch,), fields)


def section_registry() -> ConstructorRegistry:
    """Return what tyro needs to parse the types that `branch` returns."""
    registry = ConstructorRegistry()
    registry.struct_rule(_section)
    return registry


def _in_help_order(cls: type) -> list[str]:
    """Return the names of the fields of a class: those that a command adds to its recipe come first."""
    names = list(settings_of(cls))
    own = inspect.get_annotations(cls) if issubclass(cls, Controls) else {}
    return sorted(names, key=lambda name: name not in own)


def _section(info: StructTypeInfo) -> StructConstructorSpec | None:
    if not (isinstance(info.type, type) and issubclass(info.type, _Branch)):
        return None
    fields = []
    for name in _in_help_order(info.type.cls):
        setting = settings_of(info.type.cls)[name]
        value: Any = info.type.shown[name]
        kind: Any = setting.annotation
        if setting.section is not None:
            below = (path.removeprefix(f"{name}.") for path in info.type.hidden if path.startswith(f"{name}."))
            kind = branch(setting.section, value, frozenset(below), choices=info.type.choices)
            value = kind()
        elif kind is not bool:  # tyro turns a bool into a pair of flags, --x and --no-x
            kind = _text(kind, value is REQUIRED, _choices(name, kind) if info.type.choices else None)
            value = _Default(value)
        if name in info.type.hidden:
            kind = Annotated[kind, tyro.conf.Suppress]
        fields.append(
            StructFieldSpec(name=name, type=kind, default=value, helptext=partial(_description, info.type.cls, name))
        )
    shown = info.type.shown

    def given(**values: Any) -> Tree:
        def changed(name: str, value: Any) -> bool:
            same_flag = isinstance(value, bool) and value == shown[name]
            return not (same_flag or isinstance(value, _Default) or value == {})

        return {name: value for name, value in values.items() if changed(name, value)}

    return StructConstructorSpec(instantiate=given, fields=tuple(fields))


def _description(cls: type, name: str) -> str | None:
    return descriptions(cls).get(name)


def _choices(name: str, annotation: Any) -> tuple[str, ...]:
    """Return the values that a shell offers for a setting; none if they are countless, or files."""
    if name in ("config", "sweep"):
        return tuple(shipped_recipes() if name == "config" else shipped_sweeps())
    kind, _ = _without_none(annotation)
    return tuple(map(str, typing.get_args(kind))) if typing.get_origin(kind) is typing.Literal else ()


def _text(annotation: Any, required: bool, choices: tuple[str, ...] | None) -> Any:
    """Return the type, for tyro, of an option whose arguments are kept as text."""
    spec = PrimitiveConstructorSpec[Any](
        # `_value` reports a wrong number of arguments. A shell completes no option after one that may take more values.
        nargs="*" if choices is None else 1,
        metavar=_metavar(annotation),
        choices=choices or None,
        instance_from_str=lambda args: list(args),
        is_instance=lambda value: True,
        str_from_instance=_as_args,
    )
    if required:
        return Annotated[_Default, spec, tyro.conf.arg(help_behavior_hint="(required)")]
    return Annotated[_Default, spec]


def _as_args(default: _Default) -> list[str]:
    value = default.value
    if value is REQUIRED:
        return ["required"]
    if isinstance(value, tuple | list):
        return [arg for part in value for arg in _as_args(_Default(part))]
    return ["none" if value is None else str(value)]


def _without_none(annotation: Any) -> tuple[Any, bool]:
    """Return a type with None removed, and whether it included None."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        kept = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
        return (kept[0] if len(kept) == 1 else Union[tuple(kept)]), len(kept) < len(typing.get_args(annotation))  # noqa: UP007
    return annotation, False


def _metavar(annotation: Any) -> str:
    kind, optional = _without_none(annotation)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        text = "{" + ",".join(str(value) for value in arguments) + "}"
    elif origin in (tuple, list):
        inner = _metavar(arguments[0])
        text = f"[{inner} ...]" if not inner.startswith("[") else inner
    else:
        text = getattr(kind, "__name__", str(kind)).upper()
    return f"none|{text}" if optional else text


def _converted(cls: type, tree: Tree, prefix: str = "") -> Tree:
    """Return the tree with each list of arguments converted to what its setting expects."""
    found: Tree = {}
    for name, value in tree.items():
        setting, path = settings_of(cls)[name], f"{prefix}{name}"
        if setting.section is not None:
            found[name] = _converted(setting.section, value, f"{path}.")
        else:
            found[name] = _value(setting.annotation, value, path) if isinstance(value, list) else value
    return found


def _value(annotation: Any, args: list[str], path: str) -> Any:
    kind, optional = _without_none(annotation)
    if optional and [arg.lower() for arg in args] == ["none"]:
        return None
    if typing.get_origin(kind) in (tuple, list):
        inner = typing.get_args(kind)[0]
        if typing.get_origin(inner) is tuple:
            size = len(typing.get_args(inner))
            if len(args) % size:
                raise UserError(f"{option(path)} takes groups of {size} values, got {len(args)}: {' '.join(args)}")
            return [args[start : start + size] for start in range(0, len(args), size)]
        return list(args)
    if len(args) != 1:
        got = f"{len(args)}: {' '.join(args)}" if args else "none"
        raise UserError(f"{option(path)} takes one value, got {got}")
    if typing.get_origin(kind) is typing.Literal:  # pydantic would not take the text `1` for the number 1
        return next((one for one in typing.get_args(kind) if str(one) == args[0]), args[0])
    return args[0]

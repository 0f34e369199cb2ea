"""Values for the settings of the real recipe, drawn by hypothesis, and how a user writes them."""

import types
import typing
from pathlib import Path
from typing import Any, Union

import yaml
from hypothesis import strategies as st

from cluster.cli.settings import Controls, Tree, option, paths, settings_of
from tests.cluster.cli.commands import TrainLike
from tests.property_settings import names

Flat = dict[str, Any]
"""Dotted path -> value."""

PATHS = [path for path in paths(TrainLike) if path not in {*Controls.model_fields, "data"}]
"""The settings of the command, without its controls and its required option."""
RECIPE_PATHS = [path for path in PATHS if path != "out"]
"""Those that a recipe can hold."""


def annotation_of(path: str) -> Any:
    """Return the type of a setting."""
    cls: type = TrainLike
    *sections, last = path.split(".")
    for name in sections:
        section = settings_of(cls)[name].section
        assert section is not None
        cls = section
    return settings_of(cls)[last].annotation


def values(annotation: Any) -> st.SearchStrategy[Any]:
    """Return values of a type, many of which a setting of this type accepts."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return st.one_of(*(values(kind) for kind in arguments))
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin is tuple and arguments[1:] == (...,):
        return st.lists(values(arguments[0]), max_size=5).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values, arguments))
    if annotation is int:
        return st.integers(1, 64) | st.sampled_from([-1, 0, 2**31, 2**53 + 1])
    if annotation is float:
        return st.sampled_from([0.5, 1e-5, 1.0, 3.25, 1e-9, 1e22, -0.0, float("inf"), float("nan")]) | st.floats(0, 1)
    if annotation is Path:
        return names().filter(lambda text: "\0" not in text).map(Path)
    return {bool: st.booleans(), str: names(), type(None): st.none()}[annotation]


@st.composite
def settings(draw: st.DrawFn, among: list[str], max_size: int = 4) -> Flat:
    """Draw values for a few settings."""
    chosen = draw(st.lists(st.sampled_from(among), max_size=max_size, unique=True))
    return {path: draw(values(annotation_of(path))) for path in chosen}


def as_tree(flat: Flat) -> Tree:
    """Return the nested form of settings, with lists in place of tuples, as YAML has them."""

    def plain(value: Any) -> Any:
        return [plain(one) for one in value] if isinstance(value, tuple) else value

    tree: Tree = {}
    for path, value in flat.items():
        *sections, last = path.split(".")
        node = tree
        for name in sections:
            node = node.setdefault(name, {})
        node[last] = plain(value)
    return tree


def as_recipe(flat: Flat, folder: str) -> list[str]:
    """Write settings as a recipe and return the arguments that select it."""
    path = Path(folder) / "recipe.yaml"
    path.write_text(yaml.safe_dump(as_tree(flat)), encoding="utf-8")
    return ["--config", str(path)]


def as_text(value: Any) -> list[str]:
    """Return the arguments that give a value."""
    if isinstance(value, tuple):
        return [text for part in value for text in as_text(part)]
    return ["none" if value is None else str(value)]


def can_be_option(path: str, value: Any) -> bool:
    """Return whether an option can give a value: text that starts with a dash or reads `none` means something else."""
    texts = as_text(value) if isinstance(value, str | tuple | Path) else []
    return not any(text.startswith("-") or text.lower() == "none" for text in texts)


def as_options(flat: Flat, *, equals: bool = False, hyphens: bool = True) -> list[str]:
    """Return settings as options: `--a.b-c 1` or `--a.b_c=1`."""
    args: list[str] = []
    for path, value in flat.items():
        name = option(path) if hyphens else f"--{path}"
        if isinstance(value, bool):
            parent, dot, last = path.rpartition(".")
            args.append(name if value else option(f"{parent}{dot}no_{last}"))
        elif equals and len(as_text(value)) == 1:
            args.append(f"{name}={as_text(value)[0]}")
        else:
            args += [name, *as_text(value)]
    return args

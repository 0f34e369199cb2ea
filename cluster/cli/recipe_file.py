"""Read a recipe from a YAML file: known keys only, former names replaced, one-line errors that name the file."""

import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Union

from cluster.cli.former_names import with_current_names
from cluster.cli.settings import OTHER_SECTIONS, Tree, nearest, settings_of
from cluster.cli.yaml_file import read_mapping
from cluster.errors import UserError


def read_recipe(path: Path, cls: type, *, renamed: Mapping[str, str] | None = None) -> Tree:
    """Return the settings in a YAML recipe as a tree whose keys are all fields of `cls`.

    Args:
        renamed: former names found on the command line, to be included in the warning.

    Raises:
        UserError: the file is missing or not a YAML mapping, or has a key that `cls` does not have.
    """
    tree = read_mapping(path)
    known = settings_of(cls)
    tree = {name: value for name, value in tree.items() if name in known or name not in OTHER_SECTIONS}
    tree = with_current_names(tree, cls, source=str(path), renamed=renamed)
    _check_keys(tree, cls, path)
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
            # pydantic would convert `yes` to 1
            raise UserError(f"{path}: {dotted} is {str(value).lower()}; it must not be true or false")


def _allows_bool(annotation: Any) -> bool:
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return any(_allows_bool(option) for option in typing.get_args(annotation))
    return annotation is bool or (typing.get_origin(annotation) is typing.Literal)


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of every setting in a tree."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value

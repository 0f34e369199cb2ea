"""Read a recipe from a YAML file: known keys only, former names replaced, one-line errors that name the file."""

import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Union

import yaml

from cluster.cli.former_names import with_current_names
from cluster.cli.settings import OTHER_SECTIONS, Tree, nearest, settings_of
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


def read_mapping(path: Path) -> Tree:
    """Return the content of a YAML file.

    Raises:
        UserError: the file is missing, is not a YAML mapping, or has a duplicate key.
    """
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


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of every setting in a tree."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


class _UniqueKeys(yaml.SafeLoader):
    """A YAML loader that rejects duplicate keys, where the default one silently keeps the last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {name} appears twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)

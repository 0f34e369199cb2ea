"""Former names of settings, so that old recipes, options and stored files can still be read.

A settings class declares `FORMER_NAMES: ClassVar[Mapping[str, str]]`, from a former dotted path to the current one.
Values under a former name are read under the current one, with one warning.
"""

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.cli.settings import Tree, holds, option
from cluster.errors import UserError

log = logging.getLogger(__name__)

_warned_of: set[str] = set()
"""Former names that this process has already warned about."""


def current_path(path: str, cls: type) -> str:
    """Return the current dotted path of a setting, or of an element of it, given its current or a former one."""
    for former, current in _former_names(cls).items():
        if path == former or path.startswith(f"{former}."):
            return current + path.removeprefix(former)
    return path


def with_current_names(
    tree: Tree, cls: type, *, source: str = "", renamed: Mapping[str, str] | None = None, warn: bool = True
) -> Tree:
    """Return a copy of `tree` in which every former name of a setting of `cls` is replaced by the current one.

    Args:
        source: file that the tree was read from, for messages.
        renamed: former names already found elsewhere, to be included in the same warning.
        warn: whether to log the former names. A file that a program wrote needs no change by the user.

    Raises:
        UserError: the tree sets the same setting under its former and its current name.
    """
    result, renamed = copy.deepcopy(tree), dict(renamed or {})
    for former, current in _former_names(cls).items():
        if not holds(tree, former) or not _can_hold(tree, current):
            continue
        if holds(tree, current):
            begin = f"{source}: " if source else ""
            raise UserError(f"{begin}{former} is the former name of {current}, which is set too; remove {former}")
        _put(result, current, _take(result, former))
        renamed[former] = current
    if warn:
        warn_of_former_names(renamed)
    return result


def warn_of_former_names(renamed: Mapping[str, str]) -> None:
    """Log one line with each former name and its current one, leaving out those that were logged before."""
    new = {former: current for former, current in renamed.items() if former not in _warned_of}
    if new:
        _warned_of.update(new)
        listed = ", ".join(f"{former} -> {current}" for former, current in new.items())
        log.warning("renamed settings, use the new names: %s", listed)


def current_args(args: Sequence[str], cls: type) -> tuple[list[str], dict[str, str]]:
    """Return command-line arguments with former option names replaced, and the former names that were found.

    Raises:
        UserError: an option is given under its former and its current name.
    """
    result: list[str] = []
    renamed: dict[str, str] = {}
    current: set[str] = set()
    for arg in args:
        if not arg.startswith("--"):
            result.append(arg)
            continue
        name, equals, value = arg.partition("=")
        path = name.removeprefix("--").replace("-", "_")
        found = _current_flag(path, cls)
        if found == path:
            current.add(path)
            result.append(arg)
        else:
            renamed[path] = found
            result.append(f"{option(found)}{equals}{value}")
    for former, path in renamed.items():
        if path in current:
            raise UserError(
                f"{option(former)} is the former name of {option(path)}, which is given too; remove {option(former)}"
            )
    return result, renamed


def _current_flag(path: str, cls: type) -> str:
    """Return the current path of an option, which may be the negative form of a flag (`training.no_use_gpu`)."""
    parent, dot, last = path.rpartition(".")
    if not last.startswith("no_"):
        return current_path(path, cls)
    positive = f"{parent}{dot}{last.removeprefix('no_')}"
    found = current_path(positive, cls)
    if found == positive:
        return current_path(path, cls)
    parent, dot, last = found.rpartition(".")
    return f"{parent}{dot}no_{last}"


def _former_names(cls: type) -> Mapping[str, str]:
    table: Mapping[str, str] = getattr(cls, "FORMER_NAMES", {})
    return table


def _can_hold(tree: Tree, path: str) -> bool:
    """Return whether everything that the tree has above a path is a section, not a value."""
    sections = path.split(".")[:-1]
    node: Any = tree
    for section in sections:
        node = node.get(section, {})
        if not isinstance(node, dict):
            return False
    return True


def _take(tree: Tree, path: str) -> Any:
    """Remove the value at a path, and the sections that this leaves empty."""
    first, _, rest = path.partition(".")
    if not rest:
        return tree.pop(first)
    value = _take(tree[first], rest)
    if not tree[first]:
        del tree[first]
    return value


def _put(tree: Tree, path: str, value: Any) -> None:
    *sections, last = path.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
    tree[last] = value

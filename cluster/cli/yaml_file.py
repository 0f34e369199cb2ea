"""YAML: settings as text, and files that may come from anywhere, read with limits on their content.

What is read has plain values, no duplicate keys, and limits on size, depth and aliases.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cluster.cli.settings import Tree
from cluster.errors import UserError
from cluster.text import decode_text

MAX_BYTES = 2**20
"""Largest accepted file."""
MAX_VALUES = 10_000
"""Most values, where those behind an alias count each time it is used; a complete recipe has about 200."""
MAX_DEPTH = 20
"""Deepest accepted nesting."""


def to_yaml(tree: Mapping[str, Any]) -> str:
    """Return settings as YAML, in their order."""
    text: str = yaml.safe_dump(dict(tree), sort_keys=False, default_flow_style=None, width=100)
    return text


def read_mapping(path: Path) -> Tree:
    """Return the content of a YAML file.

    Raises:
        UserError: the file is missing, is not a YAML mapping, has a duplicate key, or exceeds a limit.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(
            f"cannot read the recipe {path}: {error.strerror}; give an existing YAML file, or a name of `vdsm recipes`"
        ) from None
    return parse_mapping(data, str(path))


def parse_mapping(data: bytes, name: str) -> Tree:
    """Return the content of a YAML file that was read already.

    Args:
        data: the content.
        name: its path or URL, for messages.

    Raises:
        UserError: it is not UTF-8 text or a YAML mapping, has a duplicate key, or exceeds a limit.
    """
    if len(data) > MAX_BYTES:
        raise UserError(f"{name} has more than {MAX_BYTES:,} bytes; it must be a YAML file of a few settings")
    try:
        text = decode_text(data)
    except UnicodeDecodeError:
        raise UserError(
            f"cannot read the recipe {name}: it is not UTF-8 text; give a YAML file, or a name of `vdsm recipes`"
        ) from None
    try:
        tree = _load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error)
        raise UserError(f"{name}{line} is not valid YAML: {problem:.300}") from None
    except RecursionError:
        raise UserError(f"{name} is nested too deeply; at most {MAX_DEPTH} levels are accepted") from None
    # What the constructors of PyYAML raise for dates and numbers that do not exist.
    except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
        raise UserError(f"{name} has an invalid value: {error!s:.300}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{name} holds {tree!r:.60}, not a recipe; it must be a mapping such as `seed: 0`")
    return tree


def _load(text: str) -> Any:
    loader = _UniqueKeys(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        values, depth = _extent(node, {})
        if values > MAX_VALUES:
            raise yaml.YAMLError(f"it has more than {MAX_VALUES:,} values, aliases included")
        if depth > MAX_DEPTH:
            raise RecursionError
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _extent(node: yaml.Node, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Return the number of values in a node, with every alias written out, and their depth.

    Args:
        known: results by the identity of the node; a node that contains itself counts as too large.
    """
    if isinstance(node, yaml.ScalarNode):
        return 1, 1
    if id(node) not in known:
        known[id(node)] = MAX_VALUES + 1, MAX_DEPTH + 1
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        extents = [_extent(part, known) for part in parts]
        depth = 1 + max((depth for _, depth in extents), default=0)
        known[id(node)] = 1 + sum(values for values, _ in extents), depth
    return known[id(node)]


class _UniqueKeys(yaml.SafeLoader):
    """A YAML loader that rejects duplicate keys, where the default one silently keeps the last value."""

    def fetch_flow_collection_start(self, TokenClass: type[yaml.Token]) -> None:
        # Here, because the time of the scanner grows with the square of the depth.
        if self.flow_level >= MAX_DEPTH:
            raise RecursionError
        super().fetch_flow_collection_start(TokenClass)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {name} appears twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)

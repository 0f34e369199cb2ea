"""Patterns of paths: `*` and `?` match anything but `/`, `[a-z]` one character, `**/` any folders.

Real names hold these characters too. A part of a pattern that is the literal name of a file or folder means that one.
"""

import fnmatch
import re
from collections import defaultdict
from collections.abc import Callable, Iterable

_WILDCARD = re.compile(r"[*?\[]")

Parts = tuple[str, ...]
"""A path split at `/`."""


def is_pattern(path: str) -> bool:
    """Return whether a path holds a character that is special in patterns."""
    return _WILDCARD.search(path) is not None


def split_base(pattern: str, is_folder: Callable[[str], bool]) -> tuple[str, str]:
    """Return the folder that a pattern starts from, and the pattern below it.

    Args:
        pattern: a path, absolute or relative, or an S3 URL.
        is_folder: whether a path is a folder that exists.
    """
    scheme, separator, path = pattern.rpartition("://")
    root = scheme + separator or ("/" if path.startswith("/") else "")
    parts = [part for part in path.split("/") if part]
    base: list[str] = []
    while len(parts) > 1 and (not is_pattern(parts[0]) or is_folder(root + "/".join([*base, parts[0]]))):
        base.append(parts.pop(0))
    return root + "/".join(base) or ".", "/".join(parts)


def select(names: Iterable[str], pattern: str) -> set[str]:
    """Return the names of files, relative to the same folder as the pattern, that it matches."""
    parts = [part for part in pattern.split("/") if part]
    known: dict[tuple[Parts, int], set[Parts]] = {}

    def matching(inside: list[Parts], folder: Parts, number: int) -> set[Parts]:
        """Return the names in a folder that match the parts of the pattern from a number on."""
        if (folder, number) not in known:
            known[folder, number] = find(inside, folder, number)
        return known[folder, number]

    def find(inside: list[Parts], folder: Parts, number: int) -> set[Parts]:
        part, depth, last = parts[number], len(folder), number == len(parts) - 1
        below: defaultdict[str, list[Parts]] = defaultdict(list)
        for name in inside:
            if (len(name) == depth + 1) == last:
                below[name[depth]].append(name)
        if part == "**" and not last:
            deeper = (matching(below[one], (*folder, one), number) for one in below)
            return matching(inside, folder, number + 1).union(*deeper)
        chosen = [part] if part in below else fnmatch.filter(below, part)
        if last:
            return {name for one in chosen for name in below[one]}
        return set().union(*(matching(below[one], (*folder, one), number + 1) for one in chosen))

    return {"/".join(found) for found in matching([tuple(name.split("/")) for name in names], (), 0)}

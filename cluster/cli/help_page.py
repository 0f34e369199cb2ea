"""Which settings the help of a command lists: `--help` the main ones, `--help-all` all that the command uses.

A command declares `MAIN` and `UNUSED`, dotted paths of settings or of sections. Settings that are listed nowhere are
options all the same, because a recipe is made for several commands.
"""

from collections.abc import Iterable, Sequence

from cluster.cli.settings import OTHER_SECTIONS, paths

ALL = "--help-all"


def is_requested(argv: Sequence[str]) -> bool:
    """Return whether a command line asks for help of either kind."""
    return any(arg in ("-h", "--help", ALL) for arg in argv)


def hidden_paths(command: type, argv: Sequence[str]) -> frozenset[str]:
    """Return the dotted paths that the help does not list."""
    every = paths(command)
    unused = set(_below(getattr(command, "UNUSED", ()), every))
    main: tuple[str, ...] = getattr(command, "MAIN", ())
    if ALL in argv or not main:
        return frozenset(unused)
    return frozenset(path for path in set(every) - set(_below(main, every)) if _is_of_recipe(path)) | unused


def _is_of_recipe(path: str) -> bool:
    """Return whether a setting is in a recipe; others belong to the command itself, and are few."""
    return path.partition(".")[0] in OTHER_SECTIONS


def footer(command: type, argv: Sequence[str]) -> str:
    """Return a sentence on what the help does not list; empty if it lists everything."""
    unused: tuple[str, ...] = getattr(command, "UNUSED", ())
    every, hidden = paths(command), hidden_paths(command, argv)
    used = len(every) - len(list(_below(unused, every)))
    if ALL not in argv and hidden:
        return f"These are the main settings; {ALL} lists all {used}."
    if unused:
        return f"Of a recipe, this command does not use {', '.join(unused)}."
    return ""


def _below(selected: Iterable[str], every: Iterable[str]) -> Iterable[str]:
    """Yield those of the dotted paths that are selected, or in a section that is."""
    chosen = tuple(selected)
    return (path for path in every if any(path == one or path.startswith(f"{one}.") for one in chosen))

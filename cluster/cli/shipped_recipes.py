"""The recipes and sweeps that come with the package, by name: `--config sprites-small`, `--sweep annealing`.

They are the YAML files of configs/ in the repository; an installation has a copy inside the package.
"""

import difflib
import functools
import os
import re
from pathlib import Path

from cluster.cli.paths import expand_home
from cluster.errors import UserError

FOLDER = "configs"
SWEEPS = "sweeps"
"""Folder of the sweeps below that of the recipes."""
SUFFIX = ".yaml"


@functools.cache
def _folder() -> Path:
    package = Path(__file__).resolve().parents[1]
    return next((path for path in (package / FOLDER, package.parent / FOLDER) if path.is_dir()), package / FOLDER)


def shipped_recipes() -> dict[str, Path]:
    """Return the files of the recipes by name, in alphabetical order."""
    return {path.stem: path for path in sorted(_folder().glob(f"*{SUFFIX}"))}


def shipped_sweeps() -> dict[str, Path]:
    """Return the files of the sweeps by name, in alphabetical order."""
    return {path.stem: path for path in sorted((_folder() / SWEEPS).glob(f"*{SUFFIX}"))}


def shipped_recipe(name: str) -> Path:
    """Return the path of a recipe that comes with the package, such as `quickstart` or `quickstart.yaml`.

    Raises:
        UserError: there is no such recipe.
    """
    known = shipped_recipes()
    found = known.get(name.removesuffix(SUFFIX))
    if found is None:
        raise _unknown(name, "recipe", list(known))
    return found


def recipe_path(given: str) -> Path:
    """Return the file that a value of `--config` means: the name of a shipped recipe, or a path.

    A path in the repository, such as configs/videos.yaml, means the shipped recipe where there is no such file.

    Raises:
        UserError: it is a name, and there is no such recipe.
    """
    return _resolve(given, "recipe", FOLDER, shipped_recipes())


def sweep_path(given: str) -> Path:
    """Return the file that a value of `--sweep` means, as `recipe_path` does.

    Raises:
        UserError: it is a name, and there is no such sweep.
    """
    return _resolve(given, "sweep", f"{FOLDER}/{SWEEPS}", shipped_sweeps())


def _resolve(given: str, kind: str, folder: str, known: dict[str, Path]) -> Path:
    if given in known:  # also beside a file or folder of that name: a command means the same in every folder
        return known[given]
    path = Path(expand_home(given))
    if os.path.lexists(path):  # False also for what cannot be a path
        return path
    if "/" not in given and not given.endswith((SUFFIX, ".yml")):
        raise _unknown(given, kind, list(known))
    return known.get(given.removeprefix(f"{folder}/").removesuffix(SUFFIX), path)


def _unknown(name: str, kind: str, known: list[str]) -> UserError:
    close = difflib.get_close_matches(name.removesuffix(SUFFIX), known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}? " if close else ""
    return UserError(f"there is no {kind} {name}; {hint}`vdsm recipes` lists all; or give the path of a YAML file")


def purpose(text: str) -> str:
    """Return the first sentence of the comment that a recipe begins with."""
    comment: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#").strip())
    return re.split(r"(?<=\.)\s", " ".join(comment), maxsplit=1)[0]

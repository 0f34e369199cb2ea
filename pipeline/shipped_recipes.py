"""The recipes that come with the package: in configs/ of the repository, or where an installation puts them."""

import sys
from pathlib import Path

from cluster.errors import UserError


def shipped_recipe(name: str) -> Path:
    """Return the path of a recipe that comes with the package, such as `quickstart.yaml`.

    Raises:
        UserError: it is in neither folder.
    """
    folders = (Path(__file__).resolve().parents[1] / "configs", Path(sys.prefix) / "share" / "vdsm" / "configs")
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"no {name} in {folders[0]} or {folders[1]}; give a recipe with --config")

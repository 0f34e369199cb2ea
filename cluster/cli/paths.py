"""Paths as settings: a `~` at the start stands for the home folder, also where no shell has replaced it.

A shell leaves `--out=~/data` unchanged, and a recipe never passes through one.
"""

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from cluster.errors import UserError, check_address


def expand_home(path: str) -> str:
    """Return a path or URL with a leading `~` or `~user` replaced by the home folder.

    Raises:
        UserError: that home folder is not known, and there is no file of that name; no file can have such a name; or an
            address holds credentials.
    """
    check_address(path)
    check_name(path)
    if not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError:
        if os.path.lexists(path):
            return path
        raise UserError(
            f"{path}: the home folder of {path.partition('/')[0]} is not known; give the full path, or ./{path} if it "
            "is a name"
        ) from None


def check_name(path: str) -> None:
    """Raise UserError if no file can have this name: a recipe or a list may hold any character, an argument may not."""
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:
        encoded = b"\0"
    if b"\0" in encoded:
        raise UserError(f"{path}: holds a character that no name of a file can have; correct the name")


Location = Annotated[str, AfterValidator(expand_home)]
"""A local path or s3://bucket/prefix."""
LocalPath = Annotated[Path, AfterValidator(lambda path: Path(expand_home(str(path))))]
"""A local path."""

"""What is checked of the file of a checkpoint: that it is intact, and that it is what its name says."""

from pathlib import Path

from cluster.errors import UserError
from pipeline.training.position import TrainPosition
from vdsm import checkpoint


def damage_of(url: str, path: Path) -> str | None:
    """Return what is wrong with the checkpoint at `url`, of which `path` is a local copy; None if it is intact."""
    try:
        checkpoint.verify(path)
    except ValueError as error:
        return str(error).replace(str(path), url)
    return None


def check_name(url: str, path: Path, name: TrainPosition) -> None:
    """Check that an intact checkpoint is of the position that its name says: files can be copied and exchanged.

    Args:
        url: the checkpoint.
        path: a local copy of it.
        name: its position by its name.

    Raises:
        UserError: it is of another position.
    """
    try:
        found = TrainPosition(*(checkpoint.position_in(path) or name))
    except ValueError as error:
        raise UserError(str(error).replace(str(path), url)) from error
    if found != name:
        raise misnamed(url, found, name)


def misnamed(url: str, found: TrainPosition, name: TrainPosition) -> UserError:
    """Return the error for a checkpoint of another position than its name says."""
    return UserError(
        f"{url}: is the checkpoint of {found}, not of {name}, as its name says; give it its own name, or remove it"
    )

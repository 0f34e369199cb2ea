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


def check_position(url: str, path: Path, name: TrainPosition, *, any_step: bool = False) -> TrainPosition:
    """Return the position that an intact checkpoint is of: files can be copied and exchanged.

    Args:
        url: the checkpoint.
        path: a local copy of it.
        name: its position by its name.
        any_step: whether it may be of another step of the stage.

    Raises:
        UserError: it is of another position than its name says.
    """
    try:
        found = TrainPosition(*(checkpoint.position_in(path) or name))
    except ValueError as error:
        raise UserError(str(error).replace(str(path), url)) from error
    if found != name and not (any_step and found.stage == name.stage):
        raise UserError(
            f"{url}: is the checkpoint of {found}, not of {name}, as its name says; give it its own name, or remove it"
        )
    return found

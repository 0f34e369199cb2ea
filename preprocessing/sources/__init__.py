"""Sources of clips, found by name."""

from cluster.errors import UserError
from preprocessing.clip import Source
from preprocessing.config import SourceConfig


def make_source(config: SourceConfig, seed: int) -> Source:
    """The source that `config` names.

    Raises:
        UserError: a setting, or a file of the source, is missing or wrong.
    """
    try:
        if config.name == "figures":
            from preprocessing.sources.figures import FiguresSource

            return FiguresSource(config.figures, seed)
        from preprocessing.sources.lpc import LpcSource

        if config.path is None:
            raise UserError("source.path has no value; give the folder of the Sprites sheets with --source.path")
        return LpcSource(config.path)
    except ValueError as error:
        raise UserError(str(error)) from error

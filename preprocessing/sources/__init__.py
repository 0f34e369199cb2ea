"""Sources of clips, found by name."""

import json
from collections.abc import Callable

from cluster.errors import UserError
from preprocessing.clip import Source
from preprocessing.sources.config import SourceConfig


def make_source(config: SourceConfig, seed: int) -> Source:
    """The source that `config` names. Its files are listed when they are asked for.

    Raises:
        UserError: a setting, or a file of the source, is missing or wrong.
    """
    try:
        return _MAKERS[config.name](config, seed)
    except ValueError as error:
        raise UserError(str(error)) from error


def order(config: SourceConfig, seed: int, source: Source) -> str:
    """What another process needs to open the same source without listing its inputs, as text."""
    names = {"vocabulary": source.vocabulary, "factors": source.factors}
    return json.dumps({"config": config.model_dump(mode="json"), "seed": seed, **names})


def reopen(order: str) -> Source:
    """The source of an `order`; it gives clips, and should not be asked for its items."""
    content = json.loads(order)
    source = make_source(SourceConfig.model_validate(content["config"]), content["seed"])
    vars(source).update({name: content[name] for name in ("vocabulary", "factors")})  # else it would list its inputs
    return source


def _path(config: SourceConfig, what: str) -> str:
    if config.path is None:
        raise UserError(f"source.path has no value; give {what} with --source.path")
    return config.path


def _videos(config: SourceConfig, seed: int) -> Source:
    from preprocessing.sources.videos import VideosSource

    return VideosSource(_path(config, "a folder of videos, a file, a pattern or a list"), config.videos, seed)


def _frames(config: SourceConfig, seed: int) -> Source:
    from preprocessing.sources.frames import FramesSource

    return FramesSource(_path(config, "a folder of folders of images"), config.frames, seed)


def _arrays(config: SourceConfig, seed: int) -> Source:
    from preprocessing.sources.arrays import ArraysSource

    return ArraysSource(_path(config, "a .npy or .npz, or a folder of them"), config.arrays, seed)


def _lpc(config: SourceConfig, _seed: int) -> Source:
    from cluster.storage import api as storage
    from preprocessing.sources.lpc import LpcSource
    from preprocessing.sources.lpc_universal import LpcUniversalSource

    path = _path(config, "the folder of the Sprites sheets")
    universal = any(name.startswith("body/male/") for name in storage.list_files(path))
    return LpcUniversalSource(path) if universal else LpcSource(path)


def _moving_mnist(config: SourceConfig, seed: int) -> Source:
    from preprocessing.sources.moving_mnist import MovingMnistSource

    return MovingMnistSource(_path(config, "the folder of MNIST's four files"), config.moving_mnist, seed)


def _figures(config: SourceConfig, seed: int) -> Source:
    from preprocessing.sources.figures import FiguresSource

    return FiguresSource(config.figures, seed)


def _pendulum(config: SourceConfig, seed: int) -> Source:
    from preprocessing.sources.pendulum import PendulumSource

    return PendulumSource(config.pendulum, seed)


_MAKERS: dict[str, Callable[[SourceConfig, int], Source]] = {
    "videos": _videos,
    "frames": _frames,
    "arrays": _arrays,
    "lpc": _lpc,
    "moving_mnist": _moving_mnist,
    "figures": _figures,
    "pendulum": _pendulum,
}

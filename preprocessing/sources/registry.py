"""Sources by name: make the source of a recipe, and hand it to another process without listing its inputs again."""

import json
from collections.abc import Callable

from cluster.errors import UserError
from cluster.storage import api as storage
from preprocessing.clip import Source
from preprocessing.sources.arrays import ArraysSource
from preprocessing.sources.config import SourceConfig
from preprocessing.sources.figures import FiguresSource
from preprocessing.sources.frames import FramesSource
from preprocessing.sources.hdf5 import Hdf5Source
from preprocessing.sources.huggingface import HuggingFaceSource
from preprocessing.sources.lpc import LpcSource
from preprocessing.sources.lpc_universal import LpcUniversalSource
from preprocessing.sources.moving_mnist import MovingMnistSource
from preprocessing.sources.pendulum import PendulumSource
from preprocessing.sources.videos import VideosSource


def make_source(config: SourceConfig, seed: int) -> Source:
    """Return the source that `config` selects. It lists its files when its items are first requested.

    Raises:
        UserError: a setting or a file of the source is missing or invalid.
    """
    return _MAKERS[config.name](config, seed)


def serialize_source(config: SourceConfig, seed: int, source: Source) -> str:
    """Return as JSON what another process needs to open the same source without listing its inputs."""
    names = {"vocabulary": source.vocabulary, "factors": source.factors}
    return json.dumps({"config": config.model_dump(mode="json"), "seed": seed, **names})


def open_serialized_source(serialized: str) -> Source:
    """Return the source that `serialize_source` described. It gives clips; do not request its items.

    Raises:
        UserError: a setting or a file of the source is missing or invalid.
    """
    content = json.loads(serialized)
    source = make_source(SourceConfig.model_validate(content["config"]), content["seed"])
    # Set in advance, because a source of user files would list all inputs to compute them.
    vars(source).update({name: content[name] for name in ("vocabulary", "factors")})
    return source


def _path(config: SourceConfig, expected: str) -> str:
    if config.path is None:
        raise UserError(f"source.path is not set; pass {expected} with --source.path")
    return config.path


def _make_lpc(config: SourceConfig, _seed: int) -> Source:
    path = _path(config, "the folder of the Sprites sheets")
    universal = any(name.startswith("body/male/") for name in storage.list_files(path))
    return LpcUniversalSource(path, config.repeat) if universal else LpcSource(path, config.repeat)


_MAKERS: dict[str, Callable[[SourceConfig, int], Source]] = {
    "videos": lambda config, seed: VideosSource(
        _path(config, "a folder of videos, a file, a pattern or a list"), config.videos, seed
    ),
    "frames": lambda config, seed: FramesSource(_path(config, "a folder of image folders"), config.frames, seed),
    "arrays": lambda config, seed: ArraysSource(
        _path(config, "a .npy or .npz file, or a folder of them"), config.arrays, seed
    ),
    "hdf5": lambda config, seed: Hdf5Source(_path(config, "an HDF5 file of MSD-Benchmark's layout"), config.hdf5, seed),
    "huggingface": lambda config, seed: HuggingFaceSource(
        _path(config, "hf://ORG/NAME, or a folder of .parquet files"), config.huggingface, seed
    ),
    "lpc": _make_lpc,
    "moving_mnist": lambda config, seed: MovingMnistSource(
        _path(config, "the folder with the four MNIST files"), config.moving_mnist, seed
    ),
    "figures": lambda config, seed: FiguresSource(config.figures, seed, config.repeat),
    "pendulum": lambda config, seed: PendulumSource(config.pendulum, seed),
}

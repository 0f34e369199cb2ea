"""Base of the sources that read the user's own files: all inputs are listed and labelled before any is opened."""

import dataclasses
import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

from cluster.storage import api as storage
from preprocessing.clip import Clip, Factors, Item
from preprocessing.decoding.input_file import copy_input
from preprocessing.sources.catalogue import Catalogue
from preprocessing.sources.config import ClipsConfig
from preprocessing.sources.labels import LabelReader, read_labels
from preprocessing.sources.listing import InputListing, find_inputs, resolve

C = TypeVar("C", bound=ClipsConfig)


class FileSource(ABC, Generic[C]):
    """A source whose items are files or folders.

    Args:
        path: the setting `source.path`.
        config: how to cut and label clips.
        seed: seed of the split.
    """

    def __init__(self, path: str, config: C, seed: int) -> None:
        self._path, self._config, self._seed = path, config, seed

    @functools.cached_property
    def vocabulary(self) -> dict[str, list[str]]:
        """Names of the values of each categorical label."""
        return self._catalogue.vocabulary

    @functools.cached_property
    def factors(self) -> Factors:
        """Continuous labels."""
        return self._catalogue.factors

    def items(self) -> list[Item]:
        """Return one item per input, in the order of their paths. No more than a header of any input is read."""
        return self._catalogue.items

    def fingerprint(self) -> str:
        """Return the SHA-256 of the sidecar. A change of an input shows in its `Item.version`."""
        return hashlib.sha256(self._labels.sidecar).hexdigest()

    def fetch(self, item: Item, folder: Path) -> Item:
        """Copy an input in S3 to a folder of this machine, and return it with the path of the copy.

        Raises:
            TransientError: the network failed.
            UserError: it is no longer in the bucket, or access is denied.
        """
        url = resolve(self._base, item.path)
        return dataclasses.replace(item, local=self._copy(url, folder)) if storage.is_remote(url) else item

    def _copy(self, url: str, folder: Path) -> str:
        """Copy an input in S3 to a folder, and return the path of the copy."""
        return str(copy_input(url, folder / "input"))

    @abstractmethod
    def clips(self, item: Item) -> Iterator[Clip]:
        """Yield the windows of one input."""

    @abstractmethod
    def _list_inputs(self) -> Catalogue:
        """List and label all inputs."""

    def _estimate_bytes(self, frames: float) -> int:
        """Estimate the size of the clips made from a number of input frames, in bytes."""
        config = self._config
        frame_bytes = config.size**2 * config.channels
        overlap = config.clip_frames / (config.stride or config.clip_frames)
        return round(frames * frame_bytes * overlap)

    @functools.cached_property
    def _inputs(self) -> InputListing:
        return find_inputs(self._path)

    @property
    def _base(self) -> str:
        """Folder or prefix that the paths of the inputs are relative to."""
        return self._inputs.base

    @functools.cached_property
    def _catalogue(self) -> Catalogue:
        return self._list_inputs()

    @functools.cached_property
    def _labels(self) -> LabelReader:
        return read_labels(self._config.labels)

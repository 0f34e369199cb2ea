"""What sources of the user's own files have in common: they list and label everything before anything is opened."""

import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Generic, TypeVar

from preprocessing.clip import Clip, Factors, Item
from preprocessing.sources.catalogue import Catalogue
from preprocessing.sources.config import ClipsConfig
from preprocessing.sources.labels import LabelReader, read_labels

C = TypeVar("C", bound=ClipsConfig)


class CataloguedSource(ABC, Generic[C]):
    """A source whose items are files or folders.

    Args:
        path: what `source.path` says.
        config: how clips are made, and what labels them.
        seed: of the split.
    """

    def __init__(self, path: str, config: C, seed: int) -> None:
        self._path, self._config, self._seed = path, config, seed

    @functools.cached_property
    def vocabulary(self) -> dict[str, list[str]]:
        """Names of the values of each label."""
        return self._catalogue.vocabulary

    @functools.cached_property
    def factors(self) -> Factors:
        """The labels that are numbers."""
        return self._catalogue.factors

    def items(self) -> list[Item]:
        """One item per input, in the order of their paths; none is opened for more than its header."""
        return self._catalogue.items

    def fingerprint(self) -> str:
        """SHA-256 of the sidecar; what is known of an input without reading it is in its item's `version`."""
        return hashlib.sha256(self._labels.sidecar).hexdigest()

    @abstractmethod
    def clips(self, item: Item) -> Iterator[Clip]:
        """The windows of one input."""

    @abstractmethod
    def _listed(self) -> Catalogue:
        """All inputs with their labels."""

    @functools.cached_property
    def _catalogue(self) -> Catalogue:
        return self._listed()

    @functools.cached_property
    def _labels(self) -> LabelReader:
        return read_labels(self._config.labels)

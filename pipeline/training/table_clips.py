"""What an order knows of the clips of a table: one entry per clip, in arrays."""

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.training.draws_of_keys import count_held_out, derive_seed, draw_of_group, held_out, scatter
from pipeline.training.lanes import LaneShards, ListedShards
from pipeline.training.partners import ClipTable, FirstClips, Partners, make_partners
from preprocessing.dataset.digests import digests
from preprocessing.dataset.mapped_clips import KeyColumn

Indices = NDArray[np.int64]
Hashes = NDArray[np.uint64]


class OrderedClips(Protocol):
    """The clips of an order: those to train on, and those held out for validation. B clips are asked for at a time."""

    @property
    def train_count(self) -> int:
        """Number of clips to train on."""

    @property
    def validation_count(self) -> int:
        """Number of clips held out."""

    def train_at(self, numbers: Indices) -> Indices:
        """Return the clips with some numbers among those to train on, both int64 [B]."""

    def validation_at(self, numbers: Indices) -> Indices:
        """Return the clips with some numbers among those held out, both int64 [B]."""

    def hashes_of(self, clips: Indices) -> Hashes:
        """Return the hash of the key of each clip, [B]."""

    def frames_of(self, clips: Indices) -> Indices:
        """Return the length of each clip, in frames, [B]."""

    def check_lengths(self, window: int, setting: str) -> None:
        """Raise ValueError if a clip is shorter than `window` frames, which `setting` decides."""

    def lane_shards(self) -> LaneShards:
        """Return the shards of the clips to train on."""

    def validated(self, most: int, seed: int) -> Indices:
        """Return at most so many clips to validate on, of as few shards as possible, in the order of the dataset."""

    def partners(self, stage: int) -> Partners:
        """Return the partners of the clips to train on. Raise ValueError if a clip lacks one that it needs."""


class TableClips:
    """The clips of a table.

    Raises:
        ValueError: there are fewer than two groups.
    """

    def __init__(self, table: ClipTable, seed: int, validation_fraction: float) -> None:
        self._table = table
        self._frames = np.asarray(table.frames, dtype=np.int64)
        self.hashes = table.keys.digests() if isinstance(table.keys, KeyColumn) else digests(table.keys)
        held = _held_out(table.validation_groups, seed, validation_fraction)
        self.train: Indices = np.flatnonzero(~held)
        self.validation: Indices = np.flatnonzero(held)
        self.is_late = np.zeros(len(held), dtype=bool) if table.late is None else np.asarray(table.late)
        self.shards = np.zeros(len(held), dtype=np.int64) if table.shards is None else np.asarray(table.shards)

    @property
    def train_count(self) -> int:
        """Number of clips to train on."""
        return len(self.train)

    @property
    def validation_count(self) -> int:
        """Number of clips held out."""
        return len(self.validation)

    def train_at(self, numbers: Indices) -> Indices:
        """Return the clips with some numbers among those to train on."""
        return self.train[numbers]

    def validation_at(self, numbers: Indices) -> Indices:
        """Return the clips with some numbers among those held out."""
        return self.validation[numbers]

    def hashes_of(self, clips: Indices) -> Hashes:
        """Return the hash of the key of each clip."""
        return self.hashes[clips]

    def frames_of(self, clips: Indices) -> Indices:
        """Return the length of each clip."""
        return self._frames[clips]

    def check_lengths(self, window: int, setting: str) -> None:
        """Raise ValueError if a clip is shorter than `window` frames."""
        short = np.flatnonzero(self._frames < window)
        if len(short):
            clip = self._table.keys[short[0]]
            raise ValueError(too_short(clip, int(self._frames[short[0]]), len(short), window, setting))

    def lane_shards(self) -> LaneShards:
        """Return the shards of the clips to train on."""
        return self.listed(self.train)

    def listed(self, clips: Indices) -> ListedShards:
        """Return the shards of some clips."""
        return ListedShards(clips, self.hashes[clips], self.shards[clips])

    @cached_property
    def train_shards(self) -> tuple[Indices, Hashes]:
        """The shard of each clip to train on, counted from 0, and the hash of each of these shards."""
        return self._shards_of(self.train)

    def _shards_of(self, clips: Indices) -> tuple[Indices, Hashes]:
        """Return the shard of each clip, counted from 0 among theirs, and a hash of each of these shards.

        A shard is identified by the least hash of the clips, because its number depends on where the dataset is stored.
        """
        _, shard = np.unique(self.shards[clips], return_inverse=True)
        hashes = np.full(shard.max() + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
        np.minimum.at(hashes, shard, self.hashes[clips])
        return shard, hashes

    def validated(self, most: int, seed: int) -> Indices:
        """Return at most so many clips to validate on."""
        shard, hashes = self._shards_of(self.validation)
        rank = visited_first(hashes, seed)
        return np.sort(self.validation[np.argsort(rank[shard], kind="stable")[:most]])

    def partners(self, stage: int) -> Partners:
        """Return the partners of the clips to train on."""
        return make_partners(self._table, self.train, stage)


def _held_out(groups: Sequence[str], seed: int, fraction: float) -> NDArray[np.bool_]:
    """Return whether each clip is held out, given its group."""
    if isinstance(groups, FirstClips):
        clips, names = groups.distinct()
        draws = np.fromiter((draw_of_group(name, seed) for name in names), dtype=np.int64, count=len(clips))
        count = count_held_out(len(clips), fraction)
        ranked = np.partition(draws, [count - 1, count])
        if ranked[count - 1] < ranked[count]:  # else names decide, below
            held: NDArray[np.bool_] = (draws < ranked[count])[np.searchsorted(clips, groups.numbers)]
            return held
    chosen = held_out(groups, seed, fraction)
    return np.fromiter((group in chosen for group in groups), dtype=bool)


def visited_first(hashes: Hashes, seed: int) -> Indices:
    """Return the rank of each shard, by its hash, in the order in which shards give clips for a validation."""
    rank = np.empty(len(hashes), dtype=np.int64)
    rank[np.argsort(scatter(derive_seed(seed, "validation sample"), hashes))] = np.arange(len(hashes))
    return rank


def too_short(clip: str, frames: int, count: int, window: int, setting: str) -> str:
    """Return the message for clips that are shorter than a window."""
    return (
        f"clip {clip} has {frames} frames and {setting} is {window} ({count} clips are too short); lower "
        f"{setting.partition('.')[2]} or shard longer clips"
    )

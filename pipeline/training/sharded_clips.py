"""What an order knows of clips in mapped indexes: a few numbers for each shard, and the rest when it is needed."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.training.held_out import HeldOut
from pipeline.training.lanes import LaneShards
from pipeline.training.partners import Partners, lone_identity
from pipeline.training.table_clips import too_short, visited_first
from preprocessing.dataset.mapped_clips import MappedClips

Indices = NDArray[np.int64]
Hashes = NDArray[np.uint64]

_OPEN_SHARDS = 1024


class ShardedTable(NamedTuple):
    """The clips of an order, in place of a `ClipTable`, which has the same order."""

    clips: MappedClips
    held: HeldOut


class ShardedClips:
    """The clips of a sharded table; see `OrderedClips`."""

    def __init__(self, table: ShardedTable) -> None:
        self._clips, self._held = table
        self._sizes = np.diff(self._clips.starts)
        trained = self._held.trained
        # Number of the first clip of each shard among those to train on, and among those held out; and their numbers.
        self._train_starts = np.concatenate([[0], np.cumsum(trained)])
        self._held_starts = self._clips.starts - self._train_starts
        self._rows = lru_cache(maxsize=_OPEN_SHARDS)(self._rows_to_train_on)
        none = np.zeros(0, dtype=np.int64)
        self._last: tuple[Indices, Hashes, Indices] = (none, none.astype(np.uint64), none)

    @property
    def train_count(self) -> int:
        """Number of clips to train on."""
        return int(self._train_starts[-1])

    @property
    def validation_count(self) -> int:
        """Number of clips held out."""
        return int(self._held_starts[-1])

    def _is_held(self, shard: int) -> NDArray[np.bool_]:
        return self._held.is_held(shard, int(self._sizes[shard]))

    def _rows_to_train_on(self, shard: int) -> Indices:
        return np.flatnonzero(~self._is_held(shard))

    def train_at(self, numbers: Indices) -> Indices:
        """Return the clips with some numbers among those to train on."""
        return self._at(numbers, self._train_starts, held=False)

    def validation_at(self, numbers: Indices) -> Indices:
        """Return the clips with some numbers among those held out."""
        return self._at(numbers, self._held_starts, held=True)

    def _at(self, numbers: Indices, starts: Indices, *, held: bool) -> Indices:
        shards = np.searchsorted(starts, numbers, side="right") - 1
        found = np.empty(len(numbers), dtype=np.int64)
        for shard in dict.fromkeys(shards.tolist()):
            here = shards == shard
            rows = np.flatnonzero(self._is_held(shard) == held)
            found[here] = self._clips.starts[shard] + rows[numbers[here] - starts[shard]]
        return found

    def hashes_of(self, clips: Indices) -> Hashes:
        """Return the hash of the key of each clip."""
        return self._facts(clips)[1]

    def frames_of(self, clips: Indices) -> Indices:
        """Return the length of each clip."""
        return self._facts(clips)[2]

    def _facts(self, clips: Indices) -> tuple[Indices, Hashes, Indices]:
        """Return the clips with both, which are asked for one after the other."""
        last = self._last
        if last[0] is not clips:
            self._last = last = (clips, *self._clips.hashes_and_frames(clips))
        return last

    def check_lengths(self, window: int, setting: str) -> None:
        """Raise ValueError if a clip is shorter than `window` frames."""
        shards = np.flatnonzero(self._held.shortest < window)
        if len(shards):
            first = self._clips.index(int(shards[0]))
            row = int(np.flatnonzero(first.frames < window)[0])
            count = sum(int((self._clips.index(int(shard)).frames < window).sum()) for shard in shards)
            raise ValueError(too_short(first.key(row), int(first.frames[row]), count, window, setting))

    def lane_shards(self) -> LaneShards:
        """Return the shards of the clips to train on."""
        return _TrainShards(self._clips, self._held, self._rows)

    def validated(self, most: int, seed: int) -> Indices:
        """Return at most so many clips to validate on."""
        counts = np.diff(self._held_starts)
        shards = np.flatnonzero(counts)
        shards = shards[np.argsort(visited_first(self._held.least_hashes(held=True)[shards], seed))]
        ends = np.cumsum(counts[shards])
        found = []
        for shard in shards[: int(np.searchsorted(ends, most)) + 1].tolist():
            found.append(self._clips.starts[shard] + np.flatnonzero(self._is_held(shard)))
        return np.sort(np.concatenate(found)[:most])

    def partners(self, stage: int) -> Partners:
        """Return the partners of the clips to train on: those of the same identity, which are in the same shard."""
        lone = self._held.lone
        if lone.any():
            index = self._clips.index(int(np.flatnonzero(lone)[0]))
            rows = self._rows(int(np.flatnonzero(lone)[0]))
            _, first, count = np.unique(index.hashes("identity")[rows], return_index=True, return_counts=True)
            name = index.name("identity", int(rows[first[count == 1][0]]))
            raise ValueError(lone_identity(stage, name, int(lone.sum())))
        return _ShardPartners(self._clips, self._rows)


class _TrainShards:
    """The shards with clips to train on, for `Lanes`."""

    def __init__(self, clips: MappedClips, held: HeldOut, rows: Callable[[int], Indices]) -> None:
        self._clips, self._rows = clips, rows
        self._shards = np.flatnonzero(held.trained)
        self.sizes: Indices = held.trained[self._shards]
        self.hashes: Hashes = held.least_hashes(held=False)[self._shards]

    def clips(self, shard: int) -> tuple[Indices, Hashes]:
        """Return the clips of a shard and their hashes, in the order of the hashes."""
        number = int(self._shards[shard])
        rows = self._rows(number)
        hashes = self._clips.index(number).hashes("key")[rows]
        order = np.argsort(hashes, kind="stable")
        return self._clips.starts[number] + rows[order], hashes[order]


class _ShardPartners:
    """All other clips of the same identity, none of which has clips in two shards."""

    def __init__(self, clips: MappedClips, rows: Callable[[int], Indices]) -> None:
        self._clips, self._rows = clips, rows
        self._of_shard = lru_cache(maxsize=_OPEN_SHARDS)(self._group)

    def _group(self, shard: int) -> tuple[Indices, Indices, Indices, Indices]:
        """Return the rows by identity; and for each row its rank, and the first of its identity and their number."""
        rows, identities = self._rows(shard), self._clips.index(shard).hashes("identity")
        _, group, sizes = np.unique(identities[rows], return_inverse=True, return_counts=True)
        members = rows[np.argsort(group, kind="stable")]
        starts = np.cumsum(sizes) - sizes
        first, size, rank = (np.zeros(len(identities), dtype=np.int64) for _ in range(3))
        first[rows], size[rows] = starts[group], sizes[group]
        rank[members] = np.arange(len(members)) - starts[np.sort(group)]
        return members, rank, first, size

    def choose(self, clips: Indices, draws: Hashes) -> Indices:
        """Return another clip of each clip's identity."""
        shards, rows = self._clips.places(clips)
        found = np.empty(len(clips), dtype=np.int64)
        for shard in dict.fromkeys(shards.tolist()):
            here = np.flatnonzero(shards == shard)
            members, rank, first, size = self._of_shard(shard)
            row = rows[here]
            step = 1 + (draws[here] % np.maximum(size[row] - 1, 1).astype(np.uint64)).astype(np.int64)
            found[here] = self._clips.starts[shard] + members[first[row] + (rank[row] + step) % size[row]]
        return found

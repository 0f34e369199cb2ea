"""The order of an epoch by lanes: each row of the batch reads shards that few other rows read.

A lane is a group of neighbouring rows of the global batch. In each epoch, the shards are permuted and their clips laid
end to end. Each lane gets one contiguous piece, of exactly as many clips as its rows take in that epoch, and walks it
in blocks whose clips are shuffled. Since ranks take contiguous rows, a rank reads the shards of its own lanes and no
others, at any number of ranks, while the batch of a step is the same at all of them. An epoch may begin in the middle
of a batch: its first sample is then in another row, and the pieces are as long as that makes them.

A shard at the border of two pieces is read by both lanes. So that this matters little, a lane has at least
`SHARDS_PER_LANE` shards in an epoch: then about 1 / 16 more is read than used. Partners of pairs are not bound to a
lane: a partner in another shard than its clip is read besides.

Letters: N clips, S shards, B rows of a batch, L lanes.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Draw = Callable[[str, int, Hashes], Hashes]
"""Returns a random number for each of some hashes, given a purpose and an epoch."""

ROWS_PER_LANE = 8
"""Most rows of a lane; a number that divides the batch is preferred, so that lanes and ranks have common borders. Of a
lane that is shared by two machines, both read all shards."""
SHARDS_PER_LANE = 16
_CACHED_BLOCKS = 4096


class LaneShards(Protocol):
    """The shards that are dealt to lanes, each with at least one clip."""

    @property
    def sizes(self) -> Indices:
        """Number of clips of each shard, [S]."""

    @property
    def hashes(self) -> Hashes:
        """The least hash of the clips of each shard, by which it is known, [S]."""

    def clips(self, shard: int) -> tuple[Indices, Hashes]:
        """Return the clips of a shard and the hashes of their keys, in the order of the hashes."""


class ListedShards:
    """The shards of clips that are listed.

    Args:
        clips: indices of the clips, [N].
        hashes: hash of the key of each clip, [N].
        shards: number of the shard of each clip, [N].
    """

    def __init__(self, clips: Indices, hashes: Hashes, shards: Indices) -> None:
        # Nothing depends on how the dataset numbers its clips and shards: a shard is known by the least hash in it.
        by_shard = np.lexsort((hashes, shards))
        self._clips, self._hashes = clips[by_shard], hashes[by_shard]
        _, self._first, self.sizes = np.unique(shards[by_shard], return_index=True, return_counts=True)
        self.hashes = self._hashes[self._first]

    def clips(self, shard: int) -> tuple[Indices, Hashes]:
        """Return the clips of a shard and their hashes, in the order of the hashes."""
        here = slice(self._first[shard], self._first[shard] + self.sizes[shard])
        return self._clips[here], self._hashes[here]


class _Epoch(NamedTuple):
    """How the shards lie in one epoch, and which piece each lane has."""

    shards: Indices
    """The shards in their order, [S]."""
    ends: Indices
    """Position after the last clip of each of them, [S]."""
    lead: Indices
    """Rows of each lane that belong to the epoch before, in the batch in which this one begins, [L]."""
    starts: Indices
    """First position of the piece of each lane, and N: [L + 1]."""


class Lanes:
    """The order of the clips of some shards by lanes.

    Args:
        shards: the shards.
        batch: rows of a batch.
        block_shards: shards that are shuffled together, over all lanes; a lane has at least two of them.
        draw: the source of randomness.
    """

    def __init__(self, shards: LaneShards, *, batch: int, block_shards: int, draw: Draw) -> None:
        self._batch, self._draw, self._shards, self._sizes = batch, draw, shards, shards.sizes
        self._clips = int(self._sizes.sum())
        rows = next((rows for rows in range(ROWS_PER_LANE, ROWS_PER_LANE // 2 - 1, -1) if batch % rows == 0), None)
        self.count = min(-(-batch // (rows or ROWS_PER_LANE)), max(1, len(self._sizes) // SHARDS_PER_LANE))
        """Number of lanes."""
        self.block_shards = max(2, -(-block_shards // self.count))
        """Shards in a block of one lane, on average."""
        borders = -(-np.arange(self.count + 1) * batch // self.count)
        self._first_row, self._rows = borders[:-1], np.diff(borders)
        self._block_clips = max(1, round(self.block_shards * self._clips / len(self._sizes)))
        self._epoch = lru_cache(maxsize=4)(self._lay_out)
        self._block = lru_cache(maxsize=_CACHED_BLOCKS)(self._shuffle)

    def clips(self, epoch: int, row: int, positions: Indices) -> Indices:
        """Return the clips at `positions` of an epoch, both int64, if its first sample is in row `row` of a batch."""
        laid = self._epoch(epoch, row)
        cycles, rows = np.divmod(positions + row, self._batch)
        lanes = self._lane_of(rows)
        within = cycles * self._rows[lanes] + rows - self._first_row[lanes] - laid.lead[lanes]
        blocks, offsets = np.divmod(within, self._block_clips)
        found = np.empty(len(positions), dtype=np.int64)
        places = blocks * self.count + lanes  # a number for each block of each lane
        for place in dict.fromkeys(places.tolist()):
            here = np.flatnonzero(places == place)
            block, lane = divmod(place, self.count)
            found[here] = self._block(epoch, row, lane, block)[offsets[here]]
        return found

    def lanes_of(self, rows: slice) -> int:
        """Return the number of lanes that a range of rows reads."""
        return len(np.unique(self._lane_of(np.arange(self._batch)[rows])))

    def _lane_of(self, rows: Indices) -> Indices:
        return rows * self.count // self._batch

    def _lay_out(self, epoch: int, row: int) -> _Epoch:
        shards = np.argsort(self._draw("shards", epoch, self._shards.hashes))
        lead = np.clip(row - self._first_row, 0, self._rows)
        cycles, rest = divmod(row + self._clips, self._batch)
        lengths = cycles * self._rows + np.clip(rest - self._first_row, 0, self._rows) - lead
        return _Epoch(shards, np.cumsum(self._sizes[shards]), lead, np.concatenate([[0], np.cumsum(lengths)]))

    def _shuffle(self, epoch: int, row: int, lane: int, block: int) -> Indices:
        """Return the clips of a block of a lane, in the order of the epoch."""
        laid = self._epoch(epoch, row)
        begin = int(laid.starts[lane]) + block * self._block_clips
        end = min(begin + self._block_clips, int(laid.starts[lane + 1]))
        parts, position = [], begin
        for number in range(int(np.searchsorted(laid.ends, begin, side="right")), len(laid.ends)):
            if position >= end:
                break
            shard, after = int(laid.shards[number]), int(laid.ends[number])
            first = int(self._sizes[shard]) - (after - position)
            taken = min(after, end) - position
            parts.append([column[first : first + taken] for column in self._shards.clips(shard)])
            position += taken
        clips, hashes = (np.concatenate(column) for column in zip(*parts, strict=True))
        return clips[np.argsort(self._draw("order", epoch, hashes))]

"""The global order of the clips: a function of the step, drawn from the seed and the keys of the clips alone.

Step k of a stage sees the same clips, in the same order, at any number of workers and after any number of restarts, so
that resuming a run needs nothing but the step number. Everything random is a hash of (seed, stage, epoch, clip key); no
generator carries state from one step to the next.

An epoch visits the shards in lanes, one for a few rows of the batch each: see `pipeline.training.lanes`. A rank thus
needs few shards at a time, its next ones are known long in advance, and it computes and reads its own part of a batch
alone. Runs that are older than the lanes visit the shards in blocks: the shards are permuted, and the clips within each
block are shuffled together, so that every rank reads all of them.

Letters: N clips to train on, B clips in a global batch, T frames of a sample.
"""

from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.training.draws_of_keys import derive_seed, scatter
from pipeline.training.lanes import Lanes, LaneShards
from pipeline.training.partners import ClipTable
from pipeline.training.sharded_clips import ShardedClips, ShardedTable
from pipeline.training.table_clips import OrderedClips, TableClips

Indices = NDArray[np.int64]


class Windows(NamedTuple):
    """The samples of a batch, or of one rank's part of it. All arrays are int64 [B]."""

    clips: Indices
    """Index of each sample's clip in the dataset."""
    starts: Indices
    """First frame of the window in that clip."""
    partners: Indices | None
    """Index of each sample's second clip; None without pairing."""
    partner_starts: Indices | None
    """First frame of the window in the second clip."""

    def part(self, rows: slice) -> "Windows":
        """Return the samples `rows`: one rank's slice."""
        return Windows(*(None if array is None else array[rows] for array in self))  # type: ignore[arg-type]


class GlobalOrder:
    """The order of one stage.

    Args:
        table: the clips; a sharded table with `lanes` alone. Both kinds of the same clips give the same order.
        seed: seed of the run.
        stage: 1 or 2.
        window: frames taken from each clip.
        window_setting: name of the setting of a stage that decides it.
        batch: samples per global batch.
        validation_fraction: fraction of the groups held out for validation.
        pairing: whether a sample is two windows joined in time, of a clip and of one of its partners.
        block_shards: number of shards whose clips are shuffled together.
        late_from: step from which on the late clips of the table are visited.
        validation_clips: most clips of a validation; None means all that are held out.
        lanes: whether an epoch visits the shards in lanes.

    Raises:
        ValueError: a clip is shorter than the window, or pairing finds no second clip of a group.
    """

    def __init__(
        self,
        table: ClipTable | ShardedTable,
        *,
        seed: int,
        stage: int,
        window: int,
        batch: int,
        validation_fraction: float,
        pairing: bool = False,
        block_shards: int = 32,
        late_from: int = 0,
        validation_clips: int | None = None,
        lanes: bool = False,
        window_setting: str = "clip_frames",
    ) -> None:
        self.seed, self.stage, self.window, self.batch = seed, stage, window, batch
        # None where the table is sharded: then an epoch visits the shards in lanes, and no clip is late.
        self._listed = TableClips(table, seed, validation_fraction) if isinstance(table, ClipTable) else None
        self.clips: OrderedClips = self._listed or ShardedClips(table)  # type: ignore[arg-type]
        self.clips.check_lengths(window, f"stage{stage}.{window_setting}")
        self._block_shards = block_shards
        self._validation_clips = validation_clips
        self.train_count = self.clips.train_count
        """Number of clips to train on."""
        late = 0 if self._listed is None else int(self._listed.is_late[self._listed.train].sum())
        self._early = self.train_count - late
        """Number of clips to train on that are not late."""
        self._late_from = late_from if 0 < self._early < self.train_count else 0
        self._early_epochs = -(-self._late_from * batch // max(self._early, 1))
        self._lanes = self._early_lanes = self._make_lanes(self.clips.lane_shards()) if lanes else None
        if lanes and self._late_from and self._listed is not None:
            early = self._listed.train[~self._listed.is_late[self._listed.train]]
            self._early_lanes = self._make_lanes(self._listed.listed(early))
        self._partners = self.clips.partners(stage) if pairing else None
        self._permutation = lru_cache(maxsize=4)(self._permute)

    def _make_lanes(self, shards: LaneShards) -> Lanes:
        return Lanes(shards, batch=self.batch, block_shards=self._block_shards, draw=self._draw_for)

    @cached_property
    def train(self) -> Indices:
        """Clips to train on, by index in the dataset: all of them, which takes 8 bytes for each."""
        return self.clips.train_at(np.arange(self.train_count))

    @cached_property
    def validation(self) -> Indices:
        """Clips of the groups held out for validation, likewise."""
        return self.clips.validation_at(np.arange(self.clips.validation_count))

    def _draw(self, purpose: str, epoch: int, clips: Indices) -> NDArray[np.uint64]:
        return self._draw_for(purpose, epoch, self.clips.hashes_of(clips))

    def _draw_for(self, purpose: str, epoch: int, hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return scatter(derive_seed(self.seed, self.stage, epoch, purpose), hashes)

    def _permute(self, epoch: int) -> Indices:
        assert self._listed is not None
        shard, hashes = self._listed.train_shards
        shard_order = np.argsort(self._draw_for("shards", epoch, hashes))
        block = np.empty(len(shard_order), dtype=np.int64)
        block[shard_order] = np.arange(len(shard_order)) // self._block_shards
        return self.train[np.lexsort((self._draw("order", epoch, self.train), block[shard]))]

    def epoch(self, epoch: int) -> Indices:
        """Return all clips to train on, int64 [N], in the order of `epoch`."""
        if self._lanes is not None:
            return self._lanes.clips(epoch, self._first_row(epoch), np.arange(self.train_count))
        return self._permutation(epoch)

    def shards_in_use(self, rows: slice) -> int:
        """Return about how many shards the rows of a batch need at a time, as long as the late clips are included."""
        return (
            self._block_shards if self._lanes is None else self._lanes.lanes_of(rows) * (self._lanes.block_shards + 1)
        )

    def _first_row(self, epoch: int) -> int:
        """Return the row of the batch in which the first sample of an epoch is."""
        if epoch < self._early_epochs:
            return epoch * self._early % self.batch
        return (epoch - self._early_epochs) * self.train_count % self.batch

    def epoch_of(self, step: int) -> int:
        """Return the epoch of the first sample of `step`."""
        return int(self._positions(step, slice(0, 1))[0][0])

    def _positions(self, step: int, rows: slice) -> tuple[Indices, Indices]:
        """Return the epoch of each sample in `rows` of `step`, and its number in the epoch; both int64 [B].

        Epochs without the late clips come first. The last of them is left unfinished where the late clips join.
        """
        samples = step * self.batch + np.arange(self.batch)[rows]
        if step < self._late_from:
            return np.divmod(samples, self._early)
        epochs, offsets = np.divmod(samples - self._late_from * self.batch, self.train_count)
        return epochs + self._early_epochs, offsets

    def at(self, step: int, rows: slice = slice(None)) -> Windows:
        """Return the global batch of `step` (from 0), or `rows` of it. It may span two epochs; none is incomplete."""
        epochs, offsets = self._positions(step, rows)
        pieces = []
        for epoch in np.unique(epochs).tolist():
            clips = self._visited(epoch, offsets[epochs == epoch], early=step < self._late_from)
            pieces.append(self._windows(epoch, clips))
        if len(pieces) == 1:
            return pieces[0]
        columns = zip(*pieces, strict=True)
        return Windows(*(None if column[0] is None else np.concatenate(column) for column in columns))  # type: ignore[arg-type]

    def _visited(self, epoch: int, positions: Indices, *, early: bool) -> Indices:
        """Return the clips at some positions of an epoch, both int64 [B]; `early` leaves out the late clips."""
        lanes = self._early_lanes if early else self._lanes
        if lanes is not None:
            return lanes.clips(epoch, self._first_row(epoch), positions)
        assert self._listed is not None
        visited = self.epoch(epoch)
        return (visited[~self._listed.is_late[visited]] if early else visited)[positions]

    def _windows(self, epoch: int, clips: Indices) -> Windows:
        starts = self._starts("window", epoch, clips, clips)
        if self._partners is None:
            return Windows(clips, starts, None, None)
        partners = self._partners.choose(clips, self._draw("partner", epoch, clips))
        return Windows(clips, starts, partners, self._starts("partner window", epoch, clips, partners))

    def _starts(self, purpose: str, epoch: int, drawn_for: Indices, clips: Indices) -> Indices:
        """Return the first frames of windows in `clips`, drawn by the keys of `drawn_for`; both int64 [B]."""
        choices = (self.clips.frames_of(clips) - self.window + 1).astype(np.uint64)
        return (self._draw(purpose, epoch, drawn_for) % choices).astype(np.int64)

    def window_starts(self, clips: Indices) -> Indices:
        """Return the first frame of a window in each of some clips, int64 [N]: always the same, drawn by their keys."""
        return self._starts("validation", 0, clips, clips)

    def validation_batches(self) -> list[Windows]:
        """Return the clips to validate on, in batches of at most B clips, always with the same windows, unpaired."""
        chosen = self.validated()
        chunks = np.array_split(chosen, -(-len(chosen) // self.batch))
        return [Windows(chunk, self.window_starts(chunk), None, None) for chunk in chunks]

    def validated(self) -> Indices:
        """Return the clips to validate on: all that are held out, or those of some shards, in the order of the dataset.

        The inputs of a shard are a random sample, and a sample from all shards would have to read all of them.
        """
        most = self._validation_clips
        if most is None or self.clips.validation_count <= most:
            return self.validation
        return self.clips.validated(most, self.seed)

    @property
    def validated_count(self) -> int:
        """Number of clips to validate on."""
        count, most = self.clips.validation_count, self._validation_clips
        return count if most is None else min(count, most)

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

import hashlib
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.training.lanes import Lanes
from pipeline.training.partners import ClipTable, make_partners

Indices = NDArray[np.int64]


def derive_seed(*parts: int | str) -> int:
    """Return the seed of `parts`, in [0, 2^63): the start of the SHA-256 of their text."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def scatter(base: int, hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a pseudo-random uint64 for each of `hashes`, under the seed `base` (the finaliser of SplitMix64)."""
    with np.errstate(over="ignore"):
        x = hashes + np.uint64(base) * np.uint64(2) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def held_out(groups: Sequence[str], seed: int, fraction: float) -> frozenset[str]:
    """Return the groups held out for validation: the `fraction` (at least one) with the smallest hash under `seed`.

    Raises:
        ValueError: there are fewer than two groups, one to train on and one to validate on.
    """
    distinct = sorted(set(groups), key=lambda group: (derive_seed(seed, "validation", group), group))
    if len(distinct) < 2:
        raise ValueError(
            f"the training split has {len(distinct)} group of clips (an identity, a video, clips that look alike, or a "
            "single clip where validation_unit is clip); validation holds out whole groups, so it needs at least 2"
        )
    count = min(max(1, round(fraction * len(distinct))), len(distinct) - 1)
    return frozenset(distinct[:count])


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
        table: the clips.
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
        table: ClipTable,
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
        self._frames = np.asarray(table.frames, dtype=np.int64)
        digests = b"".join(hashlib.sha256(clip.encode()).digest()[:8] for clip in table.keys)
        self._hashes = np.frombuffer(digests, dtype=">u8").astype(np.uint64)
        short = np.flatnonzero(self._frames < window)
        if len(short):
            raise ValueError(
                f"clip {table.keys[short[0]]} has {self._frames[short[0]]} frames and stage{stage}.{window_setting} is "
                f"{window} ({len(short)} clips are too short); lower {window_setting} or shard longer clips"
            )
        validation = held_out(table.validation_groups, seed, validation_fraction)
        held = np.fromiter((group in validation for group in table.validation_groups), dtype=bool)
        self.train: Indices = np.flatnonzero(~held)
        """Clips to train on, by index in the dataset."""
        self.validation: Indices = np.flatnonzero(held)
        """Clips of the groups held out for validation."""
        self._block_shards = block_shards
        self._validation_clips = validation_clips
        self._is_late = np.zeros(len(held), dtype=bool) if table.late is None else np.asarray(table.late)
        early = len(self.train) - int(self._is_late[self.train].sum())
        self._early = early
        """Number of clips to train on that are not late."""
        self._late_from = late_from if 0 < early < len(self.train) else 0
        self._early_epochs = -(-self._late_from * batch // max(early, 1))
        self._shards = np.zeros(len(held), dtype=np.int64) if table.shards is None else np.asarray(table.shards)
        self._lanes = self._early_lanes = self._make_lanes(self.train) if lanes else None
        if lanes and self._late_from:
            self._early_lanes = self._make_lanes(self.train[~self._is_late[self.train]])
        self._partners = make_partners(table, self.train, stage) if pairing else None
        self._permutation = lru_cache(maxsize=4)(self._permute)

    def _make_lanes(self, clips: Indices) -> Lanes:
        return Lanes(
            clips, self._hashes[clips], self._shards[clips],
            batch=self.batch, block_shards=self._block_shards, draw=self._draw_for,
        )  # fmt: skip

    def _draw(self, purpose: str, epoch: int, clips: Indices) -> NDArray[np.uint64]:
        return self._draw_for(purpose, epoch, self._hashes[clips])

    def _draw_for(self, purpose: str, epoch: int, hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return scatter(derive_seed(self.seed, self.stage, epoch, purpose), hashes)

    @cached_property
    def _train_shards(self) -> tuple[Indices, NDArray[np.uint64]]:
        return self._shards_of(self.train)

    def _shards_of(self, clips: Indices) -> tuple[Indices, NDArray[np.uint64]]:
        """Return the shard of each clip, counted from 0 among theirs, and a hash of each of these shards.

        A shard is identified by the least hash of the clips, because its number depends on where the dataset is stored.
        """
        _, shard = np.unique(self._shards[clips], return_inverse=True)
        hashes = np.full(shard.max() + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
        np.minimum.at(hashes, shard, self._hashes[clips])
        return shard, hashes

    def _permute(self, epoch: int) -> Indices:
        shard, hashes = self._train_shards
        shard_order = np.argsort(self._draw_for("shards", epoch, hashes))
        block = np.empty(len(shard_order), dtype=np.int64)
        block[shard_order] = np.arange(len(shard_order)) // self._block_shards
        return self.train[np.lexsort((self._draw("order", epoch, self.train), block[shard]))]

    def epoch(self, epoch: int) -> Indices:
        """Return all clips to train on, int64 [N], in the order of `epoch`."""
        if self._lanes is not None:
            return self._lanes.clips(epoch, self._first_row(epoch), np.arange(len(self.train)))
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
        return (epoch - self._early_epochs) * len(self.train) % self.batch

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
        epochs, offsets = np.divmod(samples - self._late_from * self.batch, len(self.train))
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
        visited = self.epoch(epoch)
        return (visited[~self._is_late[visited]] if early else visited)[positions]

    def _windows(self, epoch: int, clips: Indices) -> Windows:
        starts = self._starts("window", epoch, clips, clips)
        if self._partners is None:
            return Windows(clips, starts, None, None)
        partners = self._partners.choose(clips, self._draw("partner", epoch, clips))
        return Windows(clips, starts, partners, self._starts("partner window", epoch, clips, partners))

    def _starts(self, purpose: str, epoch: int, drawn_for: Indices, clips: Indices) -> Indices:
        """Return the first frames of windows in `clips`, drawn by the keys of `drawn_for`; both int64 [B]."""
        choices = (self._frames[clips] - self.window + 1).astype(np.uint64)
        return (self._draw(purpose, epoch, drawn_for) % choices).astype(np.int64)

    def validation_batches(self) -> list[Windows]:
        """Return the clips to validate on, in batches of at most B clips, always with the same windows, unpaired."""
        chosen = self.validated()
        chunks = np.array_split(chosen, -(-len(chosen) // self.batch))
        return [Windows(chunk, self._starts("validation", 0, chunk, chunk), None, None) for chunk in chunks]

    def validated(self) -> Indices:
        """Return the clips to validate on: all that are held out, or those of some shards, in the order of the dataset.

        The inputs of a shard are a random sample, and a sample from all shards would have to read all of them.
        """
        clips, most = self.validation, self._validation_clips
        if most is None or len(clips) <= most:
            return clips
        shard, hashes = self._shards_of(clips)
        rank = np.empty(len(hashes), dtype=np.int64)
        rank[np.argsort(scatter(derive_seed(self.seed, "validation sample"), hashes))] = np.arange(len(hashes))
        return np.sort(clips[np.argsort(rank[shard], kind="stable")[:most]])

"""Which clip a clip is paired with: another of its group, or one of a list."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from preprocessing.appearance.pairs import MinedPairs
from preprocessing.dataset.mapped_clips import KeyColumn

Indices = NDArray[np.int64]
Draws = NDArray[np.uint64]


class FirstClips(Sequence[str]):
    """The group of each clip, whose name is the key of one of its clips; read when it is asked for.

    Args:
        keys: keys of the clips.
        numbers: clip that names the group of each clip, [N].
    """

    def __init__(self, keys: Sequence[str], numbers: Indices) -> None:
        self._keys, self.numbers = keys, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Return the group of a clip, or of several."""
        if isinstance(index, slice):
            return [self._keys[number] for number in self.numbers[index].tolist()]
        return self._keys[int(self.numbers[index])]

    def distinct(self) -> tuple[Indices, Iterator[str]]:
        """Return the clips that name a group, in ascending order, and these names."""
        found = np.unique(self.numbers)
        if isinstance(self._keys, KeyColumn):
            return found, self._keys.at(found)
        return found, (self._keys[number] for number in found.tolist())


@dataclass(frozen=True)
class ClipTable:
    """What the order depends on: one entry per clip of a dataset."""

    keys: Sequence[str]
    """Unique keys of the clips."""
    groups: Sequence[str]
    """Group of each clip: its identity, its video, or the clips that it looks like. Clips of a group are held out
    together, and are partners of each other unless `pairs` lists partners."""
    frames: Indices
    """Length of each clip, in frames."""
    shards: Indices | None = None
    """Number of the shard that holds each clip; None means that one shard holds all."""
    pairs: MinedPairs | None = None
    """Partners of each clip, where they are not all clips of its group."""
    lone: Literal["refuse", "keep"] = "refuse"
    """What to do about a clip without a partner: raise ValueError, or take another window of itself."""
    late: NDArray[np.bool_] | None = None
    """Whether each clip is visited only from step `late_from` of the order on; None means that none is late."""
    held_out_by: Sequence[str] | None = None
    """Group of clips that each clip is held out with, if it is not its group."""

    @property
    def validation_groups(self) -> Sequence[str]:
        """Return the group of each clip, of which all clips are held out or none."""
        return self.groups if self.held_out_by is None else self.held_out_by


class Partners(Protocol):
    """The partners of all clips to train on."""

    def choose(self, clips: Indices, draws: Draws) -> Indices:
        """Return a partner of each of `clips`, both int64 [B], chosen by uniform random numbers."""


def make_partners(table: ClipTable, train: Indices, stage: int) -> Partners:
    """Return the partners among the clips `train`.

    Raises:
        ValueError: a clip has none, and the table refuses that.
    """
    if table.pairs is not None:
        return ListedPartners(table.pairs, train)
    return GroupPartners(table, train, stage)


class GroupPartners:
    """All other clips of the same group."""

    def __init__(self, table: ClipTable, train: Indices, stage: int) -> None:
        # As objects: NumPy's own strings lose NULs at their end, which makes two names one.
        groups: Any = table.groups
        every = groups.numbers if isinstance(groups, FirstClips) else np.asarray(groups, dtype=object)
        names, group = np.unique(every[train], return_inverse=True)
        sizes = np.bincount(group)
        if table.lone == "refuse" and sizes.min() < 2:
            raise ValueError(lone_identity(stage, names[sizes.argmin()], int((sizes < 2).sum())))
        # The clips sorted by group; for each clip its rank in its group, the first member of the group, and its size.
        self._members = train[np.argsort(group, kind="stable")]
        first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self._first, self._size, self._rank = (np.zeros(len(table.keys), dtype=np.int64) for _ in range(3))
        self._first[train], self._size[train] = first[group], sizes[group]
        self._rank[self._members] = np.arange(len(self._members)) - first[np.sort(group)]

    def choose(self, clips: Indices, draws: Draws) -> Indices:
        """Return another clip of each clip's group; the clip itself if it is alone."""
        others = self._size[clips] - 1
        step = 1 + (draws % np.maximum(others, 1).astype(np.uint64)).astype(np.int64)
        rank = (self._rank[clips] + step) % self._size[clips]
        return self._members[self._first[clips] + rank]


class ListedPartners:
    """The partners that a list names, without those held out."""

    def __init__(self, pairs: MinedPairs, train: Indices) -> None:
        is_trained = np.zeros(len(pairs), dtype=bool)
        is_trained[train] = True
        kept = is_trained[pairs.partners] & is_trained[pairs.firsts]
        self._partners = pairs.partners[kept]
        self._sizes = np.bincount(pairs.firsts[kept], minlength=len(pairs))
        self._offsets = np.cumsum(self._sizes) - self._sizes

    def choose(self, clips: Indices, draws: Draws) -> Indices:
        """Return a listed partner of each clip; the clip itself if it has none."""
        sizes = self._sizes[clips]
        chosen = self._offsets[clips] + (draws % np.maximum(sizes, 1).astype(np.uint64)).astype(np.int64)
        has_partner = sizes > 0
        partners = clips.copy()
        partners[has_partner] = self._partners[chosen[has_partner]]
        return partners


def lone_identity(stage: int, name: str, count: int) -> str:
    """Return the message for identities that have a single clip, which has no partner."""
    return (
        f"stage{stage}.pairing is identity, but identity {name} has a single training clip ({count} identities have); "
        "give each at least 2 clips, or set pairing to appearance, video or none"
    )

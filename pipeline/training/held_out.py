"""Which clips of mapped indexes are held out for validation, found once and kept as a bit for each clip.

An order needs the number of clips to train on in each shard, and which of its rows they are. Who is held out depends on
all identities, so it is found once, from all indexes, and stored: a hundred million clips take 25 MB, which all ranks
of a machine map.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.training.draws_of_keys import count_held_out, draw_of_group
from preprocessing.dataset import arrow_file
from preprocessing.dataset.arrow_file import Columns, Kinds
from preprocessing.dataset.clip_index import ClipIndex
from preprocessing.dataset.mapped_clips import MappedClips
from preprocessing.dataset.schema import SchemaError

Indices = NDArray[np.int64]
Unit = Literal["identity", "key"]

_KINDS: Kinds = {
    "trained": "int64", "train_hash": "uint64", "held_hash": "uint64", "shortest": "int32", "shared": "uint8",
    "lone": "int32", "held": "bytes",
}  # fmt: skip
_BITS = np.array([number.bit_count() for number in range(256)], dtype=np.uint8)
"""Number of bits that are set in each byte."""
_NONE = np.iinfo(np.uint64).max
MAX_BYTES = 2**33


@dataclass(frozen=True)
class HeldOut:
    """A row for each shard, [S]."""

    columns: Columns
    data: mmap.mmap | bytes
    """The file."""

    @property
    def trained(self) -> Indices:
        """Number of clips to train on."""
        return self.columns.array("trained")

    def least_hashes(self, *, held: bool) -> NDArray[np.uint64]:
        """Return the least hash of a key among the clips that are held out, or among the others."""
        return self.columns.array("held_hash" if held else "train_hash")

    @property
    def shortest(self) -> NDArray[np.int32]:
        """Length of the shortest clip, in frames."""
        return self.columns.array("shortest")

    @property
    def has_shared_groups(self) -> bool:
        """Whether a group has clips in several shards."""
        return bool(self.columns.array("shared").any())

    @property
    def lone(self) -> NDArray[np.int32]:
        """Number of groups to train on that have a single clip."""
        return self.columns.array("lone")

    def is_held(self, shard: int, clips: int) -> NDArray[np.bool_]:
        """Return whether each of the `clips` clips of a shard is held out."""
        return np.unpackbits(self.columns.ragged("held").row(shard), count=clips).view(np.bool_)

    @classmethod
    def read(cls, data: mmap.mmap | bytes, sizes: Indices) -> "HeldOut":
        """Return what `encode` has stored for shards of the given sizes.

        Raises:
            SchemaError: it is something else.
        """
        columns = arrow_file.decode(data, _KINDS)
        if columns.rows != len(sizes):
            raise SchemaError(f"is about {columns.rows:,} shards, but the dataset has {len(sizes):,}")
        bits, trained = columns.ragged("held"), columns.array("trained")
        if not np.array_equal(np.diff(bits.offsets), -(-sizes // 8)):
            raise SchemaError("is about shards of other sizes")
        held = np.add.reduceat(_BITS[bits.values], bits.offsets[:-1], dtype=np.int64) if len(sizes) else sizes
        if not np.array_equal(sizes - held, trained):
            raise SchemaError("contradicts itself about the clips to train on")
        return cls(columns, data)


def find_held_out(clips: MappedClips, seed: int, fraction: float, unit: Unit) -> bytes:
    """Return which clips are held out, as a file; the groups are those that `draws_of_keys.held_out` chooses.

    Args:
        clips: the training split.
        seed: seed of the run.
        fraction: fraction of the groups that is held out.
        unit: what a group is: the clips of an identity, or a single clip.

    Raises:
        ValueError: there are fewer than two groups.
    """
    draws, ends = [np.zeros(0, dtype=np.int64)], [0]
    for index in clips.indexes():
        draws.append(_draws(index, seed, unit))
        ends.append(ends[-1] + len(draws[-1]))
    every = np.concatenate(draws)
    del draws
    distinct, counts = np.unique(every, return_counts=True)
    threshold = int(distinct[count_held_out(len(distinct), fraction) - 1])
    several = distinct[counts > 1]
    rows = list(_rows(clips, every, ends, threshold, several, unit))
    numbers = {name: kind for name, kind in _KINDS.items() if name != "held"}
    columns: dict[str, arrow_file.Column] = {
        name: np.array([row[n] for row in rows], dtype=kind) for n, (name, kind) in enumerate(numbers.items())
    }
    return arrow_file.encode({**columns, "held": arrow_file.ragged([row[-1] for row in rows])}, _KINDS)


def _groups(index: ClipIndex, unit: Unit) -> tuple[Indices, Indices]:
    """Return the first clip of each group in a shard, and the group of each clip."""
    _, first, group = np.unique(index.hashes(unit), return_index=True, return_inverse=True)
    return first, group


def _draws(index: ClipIndex, seed: int, unit: Unit) -> Indices:
    names = index.names(unit, _groups(index, unit)[0].tolist())
    return np.array([draw_of_group(name, seed) for name in names], dtype=np.int64)


def _rows(
    clips: MappedClips, draws: Indices, ends: list[int], threshold: int, several: Indices, unit: Unit
) -> Iterator[tuple[int, int, int, int, bool, int, bytes]]:
    for number, index in enumerate(clips.indexes()):
        own = draws[ends[number] : ends[number + 1]]
        group = _groups(index, unit)[1]
        is_held_group = own <= threshold
        held, hashes = is_held_group[group], index.hashes("key")
        train_hash, held_hash = (int(hashes[part].min(initial=_NONE)) for part in (~held, held))
        lone = int(((np.bincount(group, minlength=len(own)) == 1) & ~is_held_group).sum())
        shared = bool(len(several)) and bool((several[np.searchsorted(several[:-1], own)] == own).any())
        bits = np.packbits(held).tobytes()
        yield int((~held).sum()), train_hash, held_hash, int(index.frames.min()), shared, lone, bits

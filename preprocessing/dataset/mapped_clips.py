"""What the Arrow indexes of format 3 say of the clips of a split, read when it is asked for.

An index is mapped when a clip of its shard is first needed. What concerns a single clip costs nothing but that; a
column of all clips is read from all indexes, once.
"""

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from preprocessing.dataset.cache import ShardCache
from preprocessing.dataset.clip_index import ClipIndex
from preprocessing.dataset.digests import Digests
from preprocessing.dataset.format import Manifest, StoredFile, columns_path
from preprocessing.dataset.index import read_each
from preprocessing.dataset.mapped_file import map_stored
from preprocessing.dataset.shard_file import ClipLocation
from preprocessing.dataset.shard_table import ShardTable

MAX_MAPPED = 1024
"""Maximum number of indexes that a process keeps mapped."""

T = TypeVar("T")
Indices = NDArray[np.int64]


class MappedClips:
    """The clips of a split.

    Args:
        url: the dataset.
        shards: the shards of the split.
        manifest: declares labels and factors.
        cache: the cache for indexes in S3.
    """

    def __init__(self, url: str, shards: ShardTable, manifest: Manifest, cache: ShardCache) -> None:
        self._url, self._shards, self._manifest, self._cache = url, shards, manifest, cache
        self.starts: Indices = np.concatenate([[0], np.cumsum(shards.numbers("clips"))]).astype(np.int64)
        """Number of the first clip of each shard, and the number of clips, [S + 1]."""
        self._mapped: OrderedDict[int, ClipIndex] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self.starts[-1])

    def index(self, shard: int) -> ClipIndex:
        """Return the index of a shard.

        Raises:
            DamagedDatasetError: it is missing or was changed.
        """
        with self._lock:
            found = self._mapped.get(shard)
            if found is not None:
                self._mapped.move_to_end(shard)
                return found
        found = self._map(shard)  # without the lock: it may be far away
        with self._lock:
            self._mapped[shard] = found
            if len(self._mapped) > MAX_MAPPED:
                self._mapped.popitem(last=False)
        return found

    def _map(self, shard: int) -> ClipIndex:
        entry = self._shards[shard]
        path = columns_path(entry["path"])
        file = StoredFile(path=path, sha256=entry["columns_sha256"], size_bytes=entry["columns_bytes"])
        data = map_stored(self._url, file, self._cache)
        return ClipIndex(
            self._url, path, data, clips=entry["clips"], size_bytes=entry["size_bytes"], manifest=self._manifest
        )

    def indexes(self) -> Iterator[ClipIndex]:
        """Yield the index of each shard, in order; from S3, several are fetched at once. None of them stays mapped."""
        return read_each(self._url, self._map, range(len(self._shards)))

    def places(self, clips: Indices) -> tuple[Indices, Indices]:
        """Return the shard of each clip, and its row in the index of that shard; all int64 [B]."""
        shards = np.searchsorted(self.starts, clips, side="right") - 1
        return shards, clips - self.starts[shards]

    def place(self, clip: int) -> tuple[ClipIndex, int, int]:
        """Return the index that holds a clip, its row there, and the number of the shard."""
        if not 0 <= clip < len(self):
            raise IndexError(clip)
        shard = int(np.searchsorted(self.starts, clip, side="right")) - 1
        return self.index(shard), clip - int(self.starts[shard]), shard

    def hashes_and_frames(self, clips: Indices) -> tuple[Digests, Indices]:
        """Return the hash of the key and the length in frames of each clip, [B]."""
        shards, rows = self.places(clips)
        hashes, frames = np.empty(len(rows), dtype=np.uint64), np.empty(len(rows), dtype=np.int64)
        for shard in dict.fromkeys(shards.tolist()):
            index, here = self.index(shard), np.flatnonzero(shards == shard)
            row = rows[here]
            hashes[here], frames[here] = index.hashes("key")[row], index.frames[row]
        return hashes, frames

    @property
    def keys(self) -> "KeyColumn":
        """Key of each clip."""
        return KeyColumn(self, lambda index, row: index.key(row), lambda index: index.names("key"), object)

    @property
    def clip_frames(self) -> "LazyColumn[int]":
        """Frames of each clip."""
        return LazyColumn(
            self, lambda index, row: int(index.frames[row]), lambda index: index.frames.tolist(), np.int64
        )

    @property
    def clip_shards(self) -> "ShardNumbers":
        """Shard of each clip."""
        return ShardNumbers(self)

    @functools.cached_property
    def identities(self) -> list[str]:
        """Identity of each clip."""
        return [name for index in self.indexes() for name in index.names("identity")]

    @functools.cached_property
    def sources(self) -> list[str]:
        """Source of each clip; one string for all clips of a source."""
        known: dict[str, str] = {}
        return [known.setdefault(name, name) for index in self.indexes() for name in index.names("source")]

    @functools.cached_property
    def source_numbers(self) -> Indices:
        """Number of each clip's source among their names in ascending order, [N]. Names are read once per shard."""
        known: dict[str, int] = {}
        parts = [np.zeros(0, dtype=np.int64)]
        for index in self.indexes():
            _, first, source = np.unique(index.hashes("source"), return_index=True, return_inverse=True)
            names = index.names("source", first.tolist())
            parts.append(np.array([known.setdefault(name, len(known)) for name in names], dtype=np.int64)[source])
        names_in_order = sorted(known)
        rank = np.empty(len(known), dtype=np.int64)
        rank[[known[name] for name in names_in_order]] = np.arange(len(known))
        return rank[np.concatenate(parts)]

    @functools.cached_property
    def _numbers(self) -> dict[tuple[str, str], NDArray[Any]]:
        """All columns of numbers, read together."""
        labels, kinds = self._manifest["vocabulary"], self._manifest.get("factors", {})
        parts: dict[tuple[str, str], list[NDArray[Any]]] = {("time", "fps"): [], ("time", "starts_s"): []}
        parts |= {("label", name): [] for name in labels}
        parts |= {("factor", name): [] for name, kind in kinds.items() if kind == "clip"}
        for index in self.indexes():
            for (kind, name), column in parts.items():
                read = {"label": index.labels, "factor": index.factor}.get(kind)
                column.append(np.array(read(name) if read else getattr(index, name)))
        types = {"label": np.int64, "factor": np.float64, "time": np.float64}
        return {
            (kind, name): np.concatenate([np.zeros(0, types[kind]), *column]).astype(types[kind])
            for (kind, name), column in parts.items()
        }

    @property
    def labels(self) -> dict[str, NDArray[np.int64]]:
        """Per label, [N]."""
        return {name: values for (kind, name), values in self._numbers.items() if kind == "label"}

    @property
    def factors(self) -> dict[str, NDArray[np.float64]]:
        """Per factor of clips, [N]."""
        return {name: values for (kind, name), values in self._numbers.items() if kind == "factor"}

    @property
    def fps(self) -> NDArray[np.float64]:
        """Frames per second of each clip, [N]."""
        return self._numbers["time", "fps"]

    @property
    def starts_s(self) -> NDArray[np.float64]:
        """Start of each clip, [N]."""
        return self._numbers["time", "starts_s"]

    def tracks(self, index: int) -> dict[str, NDArray[np.float64]]:
        """Return the factors of a clip's frames, [T] each."""
        found, row, _ = self.place(index)
        kinds = self._manifest.get("factors", {})
        return {name: np.array(found.track(name, row)) for name, kind in kinds.items() if kind == "frame"}

    def location(self, index: int) -> ClipLocation:
        """Return where the frames of a clip are."""
        found, row, shard = self.place(index)
        return found.location(row, shard)


class LazyColumn(Sequence[T], Generic[T]):
    """A fact about each clip; read from the index of its shard when it is asked for.

    Args:
        clips: the clips.
        one: returns the value of a row of an index.
        every: returns the values of all its rows.
        dtype: that of an array of all values.
    """

    def __init__(
        self, clips: MappedClips, one: Callable[[ClipIndex, int], T], every: Callable[[ClipIndex], list[T]], dtype: Any
    ) -> None:
        self._clips, self._one, self._every, self._dtype = clips, one, every, dtype

    def __len__(self) -> int:
        return len(self._clips)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = int(index)
        found, row, _ = self._clips.place(number + len(self) if number < 0 else number)
        return self._one(found, row)

    def __iter__(self) -> Iterator[T]:
        for index in self._clips.indexes():
            yield from self._every(index)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.fromiter(self, dtype=self._dtype, count=len(self)).astype(dtype or self._dtype, copy=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(a == b for a, b in zip(self, other))

    __hash__ = None  # type: ignore[assignment]


class KeyColumn(LazyColumn[str]):
    """The key of each clip."""

    def digests(self) -> Digests:
        """Return the hash of each key, [N], as the indexes store it."""
        stored = [np.array(index.hashes("key"), dtype=np.uint64) for index in self._clips.indexes()]
        return np.concatenate([np.zeros(0, dtype=np.uint64), *stored])

    def at(self, clips: Indices) -> Iterator[str]:
        """Yield the keys of some clips, whose numbers ascend, [B]."""
        shards, rows = self._clips.places(clips)
        numbers, starts = np.unique(shards, return_index=True)
        for shard, own in zip(numbers.tolist(), np.split(rows, starts[1:]), strict=True):
            yield from self._clips.index(shard).names("key", own.tolist())


class ShardNumbers(Sequence[int]):
    """The number of the shard that holds each clip, computed from the table of shards."""

    def __init__(self, clips: MappedClips) -> None:
        self._clips = clips

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: Any) -> Any:
        """Return the shard of a clip, or of each clip of an array."""
        if isinstance(index, np.ndarray):
            return self._clips.places(index)[0]
        if isinstance(index, slice):
            return self._clips.places(np.arange(*index.indices(len(self))))[0].tolist()
        return int(self._clips.places(np.array([range(len(self))[index]]))[0][0])

    def __iter__(self) -> Iterator[int]:
        return iter(np.asarray(self).tolist())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        sizes = np.diff(self._clips.starts)
        return np.repeat(np.arange(len(sizes)), sizes).astype(dtype or np.int64, copy=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

"""Random access to the clips of a dataset, with numpy alone; format 3 needs pyarrow, too.

Local shards are read in place. Shards in S3 are downloaded into a local cache; see `preprocessing.dataset.cache`.
"""

import functools
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage import os_errors
from preprocessing.dataset.cache import CACHE_BYTES, DamagedShardError, ShardCache, cache_folder
from preprocessing.dataset.errors import DamagedDatasetError, damaged_file
from preprocessing.dataset.format import MANIFEST, Manifest, ShardEntry
from preprocessing.dataset.index import check_sizes, first_shards
from preprocessing.dataset.listed_clips import ClipColumns, ListedClips
from preprocessing.dataset.manifest import read_manifest, shards_of
from preprocessing.dataset.mapped_clips import MappedClips
from preprocessing.dataset.shard_file import OpenShard
from preprocessing.dataset.shard_table import ShardTable

MAX_OPEN = 256
"""Maximum number of shards that a process keeps open."""


class ClipDataset:
    """The clips of one split, in the manifest's order.

    Args:
        url: folder or s3:// prefix that holds the manifest.
        split: `train` or `test`.
        cache: folder for shards from S3; by default `$VDSM_CACHE` or `~/.cache/vdsm`.
        cache_bytes: capacity of the cache.
        most_clips: leave out the shards after those that hold so many clips, which are a random sample; None reads all.

    Raises:
        DamagedDatasetError: a shard or an index is missing, cut short or changed.
        UserError: there is no dataset, it has no such split, or its format is not readable.
    """

    manifest: Manifest
    """The manifest, as stored."""
    manifest_sha256: str
    """SHA-256 of the manifest's bytes; identifies everything in the dataset."""
    vocabulary: dict[str, list[str]]
    """Per label, the names of its values."""

    def __init__(
        self, url: str, split: str, cache: Path | None = None, cache_bytes: int = CACHE_BYTES,
        most_clips: int | None = None,
    ) -> None:  # fmt: skip
        self._url, self._split, self._most_clips = url, split, most_clips
        self._cache, self._cache_bytes = ShardCache(cache or cache_folder(), cache_bytes), cache_bytes
        self._cache_folder = cache
        self.manifest, self.manifest_sha256 = read_manifest(url, self._cache)
        if split not in self.manifest["splits"]:
            raise UserError(f"{url} has no split {split}; it has {', '.join(self.manifest['splits'])}")
        self.vocabulary = self.manifest["vocabulary"]
        self._shards = first_shards(shards_of(self.manifest, split), most_clips)
        self._open: OrderedDict[int, OpenShard] = OrderedDict()
        self._lock = threading.Lock()
        self._prepared: dict[int, int] = {}
        # One process uses at most half of the cache, so that the other half can hold prefetched shards.
        self._half_bytes = cache_bytes // 2
        check_sizes(url, self._shards)
        shards = self._shards
        self.mapped = MappedClips(url, shards, self.manifest, self._cache) if isinstance(shards, ShardTable) else None
        self._columns: ClipColumns = ListedClips(url, shards, self.manifest) if self.mapped is None else self.mapped

    def __len__(self) -> int:
        return len(self._columns)

    @functools.cached_property
    def keys(self) -> Sequence[str]:
        """Key of each clip."""
        return self._columns.keys

    @functools.cached_property
    def identities(self) -> list[str]:
        """Identity of each clip."""
        return self._columns.identities

    @functools.cached_property
    def labels(self) -> dict[str, NDArray[np.int64]]:
        """Per label, [N] indices into its vocabulary."""
        return self._columns.labels

    @functools.cached_property
    def factors(self) -> dict[str, NDArray[np.float64]]:
        """Per continuous factor with one value per clip, [N] values. See `tracks` for those with one per frame."""
        return self._columns.factors

    @functools.cached_property
    def clip_frames(self) -> Sequence[int]:
        """Number of frames of each clip."""
        return self._columns.clip_frames

    @functools.cached_property
    def clip_shards(self) -> Sequence[int]:
        """Number of the shard that holds each clip."""
        return self._columns.clip_shards

    @functools.cached_property
    def fps(self) -> NDArray[np.float64]:
        """Frames per second of each clip, [N]."""
        return self._columns.fps

    @functools.cached_property
    def sources(self) -> list[str]:
        """Source of each clip, such as the path of a video."""
        return self._columns.sources

    @functools.cached_property
    def starts_s(self) -> NDArray[np.float64]:
        """Start of each clip in its source, in seconds, [N]."""
        return self._columns.starts_s

    @property
    def url(self) -> str:
        """Where the dataset is."""
        return self._url

    @property
    def shards(self) -> "list[ShardEntry] | ShardTable":
        """The shards of the split, as the manifest lists them."""
        return self._shards

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """[H, W, C] of every frame of the dataset."""
        _, height, width, channels = self.manifest.get("clip_shape", [None] * 4)
        if height is None or width is None or channels is None:
            raise damaged_file(self._url, MANIFEST, "it does not give the size of the frames")
        return height, width, channels

    @property
    def source(self) -> dict[str, Any]:
        """The source that the dataset was made from: its `name`, and the section of settings with that name."""
        source = self.manifest.get("configuration", {}).get("source")
        if not isinstance(source, dict) or not (isinstance(source.get("name"), str) and source["name"]):
            raise damaged_file(self._url, MANIFEST, "it does not name the source of the clips")
        return source

    @property
    def source_sha256(self) -> str:
        """SHA-256 of what all inputs of the source share; see `Source.fingerprint`."""
        return self.manifest.get("source_sha256", "")

    def frames(self, index: int) -> NDArray[np.uint8]:
        """Return the frames of a clip, uint8 [T, H, W, C], as a new array.

        Raises:
            DamagedDatasetError: the stored bytes were changed.
        """
        found = self._read(index)
        if found is None and storage.is_remote(self._url):  # the local copy was changed, or the disk is faulty
            self._discard(self._columns.location(index).shard)
            found = self._read(index)
        return self._checked(index, found)

    def decode(self, index: int, member: bytes) -> NDArray[np.uint8]:
        """Return the frames of a clip in the `.frames.npy` member of its shard, read otherwise, as a new array.

        Raises:
            DamagedDatasetError: it is not the member that was written.
        """
        return self._checked(index, self._columns.location(index).frames(np.frombuffer(member, dtype=np.uint8).copy()))

    def _checked(self, index: int, found: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        if found is not None and "clip_shape" in self.manifest and found.shape[1:] != self.frame_shape:
            size, expected = ("x".join(map(str, shape)) for shape in (found.shape[1:], self.frame_shape))
            problem = f"clip {self.keys[index]} has frames of {size}, but the manifest says {expected}"
            raise self._damage(self._columns.location(index).shard, problem)
        if found is None:
            raise self._damage(
                self._columns.location(index).shard, f"the bytes of clip {self.keys[index]} were changed"
            )
        return found

    def _read(self, index: int) -> NDArray[np.uint8] | None:
        """Return the frames of a clip, or None if their CRC-32 is wrong."""
        location = self._columns.location(index)
        shard = self._shard(location.shard)
        member = np.empty(location.length, dtype=np.uint8)
        buffer = memoryview(member)  # type: ignore[arg-type]
        try:
            length = os.preadv(shard.fileno, [buffer], location.offset)
        except OSError as error:
            raise self._failed(location.shard, error) from None
        return location.frames(member[:length])

    def prepare(self, shard: int) -> bool:
        """Prefetch a shard, from S3 into the cache or from disk into memory.

        Return False if the cache has no room for it now.
        """
        if not storage.is_remote(self._url):
            # Clips are read in any order; one sequential read puts their bytes into the page cache.
            try:
                with storage.open_file(storage.join(self._url, self._shards[shard]["path"]), buffering=0) as file:
                    while file.read(1 << 20):
                        pass
            except OSError as error:
                raise self._failed(shard, error) from None
            return True
        size = self._shards[shard]["size_bytes"]
        with self._lock:
            if self._prepared and sum(self._prepared.values()) + size > self._half_bytes:
                return False
        if not self._cache.prepare(self._url, self._shards[shard]):
            return False
        with self._lock:
            if shard not in self._open:
                self._prepared[shard] = size
        return True

    def tracks(self, index: int) -> dict[str, NDArray[np.float64]]:
        """Return the continuous factors of a clip's frames: name -> [T] values."""
        return self._columns.tracks(index)

    def __getstate__(self) -> dict[str, Any]:
        if self.mapped is not None:  # mapped memory stays in its process
            return {"again": (self._url, self._split, self._cache_folder, self._cache_bytes, self._most_clips)}
        return {name: value for name, value in self.__dict__.items() if name not in ("_open", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "again" in state:
            self.__init__(*state["again"])  # type: ignore[misc]
            return
        self.__dict__ |= state
        self._open, self._lock = OrderedDict(), threading.Lock()

    def _shard(self, number: int) -> OpenShard:
        """Return a shard, opened on first use."""
        with self._lock:
            if number not in self._open:
                self._open[number] = OpenShard(self.open_shard(number))
                self._prepared.pop(number, None)
                self._close_oldest()
            self._open.move_to_end(number)
            return self._open[number]

    def open_shard(self, number: int) -> IO[bytes]:
        """Open the tar of a shard, to read it from start to end.

        Raises:
            DamagedDatasetError: it is missing, or has another length or hash.
        """
        shard = self._shards[number]
        try:
            if storage.is_remote(self._url):
                opened: IO[bytes] = self._cache.open(self._url, shard)
            else:
                opened = storage.open_file(storage.join(self._url, shard["path"]), buffering=0)
        except DamagedShardError:
            raise self._damage(number, "its length or SHA-256 does not match the manifest") from None
        except OSError as error:
            raise self._failed(number, error) from None
        size = os.fstat(opened.fileno()).st_size
        if size != shard["size_bytes"]:
            opened.close()
            raise self._damage(number, f"it has {size} bytes, not {shard['size_bytes']}")
        return opened

    def _close_oldest(self) -> None:
        """Close the least recently used shards: above `MAX_OPEN`, and above half of the cache if they are from S3."""
        room = self._half_bytes if storage.is_remote(self._url) else math.inf
        total = sum(shard.size for shard in self._open.values())
        while len(self._open) > 1 and (total > room or len(self._open) > MAX_OPEN):
            _, oldest = self._open.popitem(last=False)
            total -= oldest.size

    def _discard(self, number: int) -> None:
        with self._lock:
            self._open.pop(number, None)
        self._cache.discard(self._shards[number])

    def _failed(self, number: int, error: OSError) -> UserError:
        """Return the error for a shard that cannot be read: of this machine, of storage, or damage of the shard."""
        path = storage.join(self._url, self._shards[number]["path"])
        if os_errors.cause_of(error) is None:
            return self._damage(number, str(error))
        try:
            os_errors.explain(path, error)
        except UserError as explained:
            return explained

    def _damage(self, number: int, problem: str) -> DamagedDatasetError:
        return damaged_file(self._url, self._shards[number]["path"], problem)

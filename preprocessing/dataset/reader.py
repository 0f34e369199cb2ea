"""Reading a dataset: any clip by its index, with numpy alone.

Local shards are read in place. Shards in S3 are brought whole into a cache on this machine, see shard_cache.py.
"""

import hashlib
import json
import math
import os
import threading
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from preprocessing.dataset.cache import CACHE_BYTES, DamagedShardError, ShardCache

FORMATS = (1, 2)
"""The versions of the dataset's format that are understood here."""

MOST_OPEN = 256
"""Shards that a process keeps open."""


class DamagedDatasetError(UserError):
    """A file of the dataset is not what its manifest says."""


@dataclass(frozen=True)
class ClipLocation:
    shard: int
    offset: int
    length: int
    crc32: int
    shape: tuple[int, int, int, int]


class _OpenShard:
    """A file that is closed when the last who reads in it has let go of it. The cache sees that it is in use."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.fileno = file, file.fileno()
        self.size = os.fstat(self.fileno).st_size

    def __del__(self) -> None:
        self._file.close()


class ClipDataset:
    """The clips of one split, in the manifest's order.

    Args:
        url: folder or s3:// prefix that holds `manifest.json`.
        split: `train` or `test`.
        cache: folder for shards from S3; `$VDSM_CACHE` or `~/.cache/vdsm` if absent.
        cache_bytes: room in it.

    Raises:
        DamagedDatasetError: a shard or an index is missing, cut short or changed.
        UserError: there is no dataset, or it has no such split, or another format.
    """

    manifest: dict[str, Any]
    """The manifest, as stored."""
    manifest_sha256: str
    """SHA-256 of the manifest's bytes: identifies everything in the dataset."""
    keys: list[str]
    """Key of each clip."""
    identities: list[str]
    """Identity of each clip."""
    labels: dict[str, NDArray[np.int64]]
    """Per label, [N] indices into its vocabulary."""
    vocabulary: dict[str, list[str]]
    """Per label, the names of its values."""
    factors: dict[str, NDArray[np.float64]]
    """Per continuous factor of a clip, [N] values. Those of the frames are in `tracks`."""
    clip_frames: list[int]
    """Frames of each clip."""
    clip_shards: list[int]
    """Number of the shard that holds each clip."""
    fps: NDArray[np.float64]
    """Frames per second of each clip, [N]."""

    def __init__(self, url: str, split: str, cache: Path | None = None, cache_bytes: int = CACHE_BYTES) -> None:
        self._url = url
        folder = cache or Path(os.environ.get("VDSM_CACHE") or Path.home() / ".cache" / "vdsm")
        self._cache = ShardCache(folder, cache_bytes)
        self.manifest, self.manifest_sha256 = read_manifest(url)
        if split not in self.manifest["splits"]:
            raise UserError(f"{url} has no split {split}; it has {', '.join(self.manifest['splits'])}")
        self.vocabulary = self.manifest["vocabulary"]
        self._shards = [shard for shard in self.manifest["shards"] if shard["split"] == split]
        self._open: OrderedDict[int, _OpenShard] = OrderedDict()
        self._lock = threading.Lock()
        self._prepared: dict[int, int] = {}
        # So much of the cache may be in use by one process at a time; the other half can be filled ahead of need.
        self._half_bytes = cache_bytes // 2
        self._places: list[ClipLocation] = []
        self.keys, self.identities = [], []
        kinds: dict[str, str] = self.manifest.get("factors", {})  # older datasets have none
        values: dict[str, list[Any]] = {name: [] for name in (*self.vocabulary, *kinds)}
        rates: list[float] = []
        for number, shard in enumerate(self._shards):
            if not storage.is_s3(url):  # what comes from S3 is checked when it is fetched
                _check_size(url, shard)
            for sample in read_index(url, shard):
                self.keys.append(sample["key"])
                self.identities.append(sample["identity"])
                rates.append(sample["fps"])
                for name, column in values.items():
                    column.append(sample["labels"][name])
                place = (sample["frames_offset"], sample["frames_length"], sample["frames_crc32"])
                self._places.append(ClipLocation(number, *place, shape=tuple(sample["shape"])))
        self.labels = {name: np.array(values[name], dtype=np.int64) for name in self.vocabulary}
        self.factors = {n: np.array(values[n], dtype=np.float64) for n, kind in kinds.items() if kind == "clip"}
        self._tracks = {
            n: [np.array(track, dtype=np.float64) for track in values[n]]
            for n, kind in kinds.items()
            if kind == "frame"
        }
        self.clip_frames = [place.shape[0] for place in self._places]
        self.clip_shards = [place.shard for place in self._places]
        self.fps = np.array(rates, dtype=np.float64)

    def __len__(self) -> int:
        return len(self.keys)

    def frames(self, index: int) -> NDArray[np.uint8]:
        """The frames of a clip, uint8 [T, H, W, C], as a new array; DamagedDatasetError if they were changed."""
        found = self._read(index)
        if found is None and storage.is_s3(self._url):  # the copy on this machine was changed, or its disk is bad
            self._forget(self._places[index].shard)
            found = self._read(index)
        if found is None:
            raise self._damage(self._places[index].shard, f"clip {self.keys[index]} is not as it was written")
        return found

    def _read(self, index: int) -> NDArray[np.uint8] | None:
        """The frames of a clip; none if they are not what was written."""
        place = self._places[index]
        shard = self._shard(place.shard)
        member = np.empty(place.length, dtype=np.uint8)
        buffer = memoryview(member)  # type: ignore[arg-type]
        try:
            length = os.preadv(shard.fileno, [buffer], place.offset)
        except OSError as error:
            raise self._damage(place.shard, str(error)) from None
        if length != place.length or zlib.crc32(buffer) != place.crc32:
            return None
        # A .npy file is a header and then the values; the index tells their number.
        return member[place.length - int(np.prod(place.shape)) :].reshape(place.shape)

    def prepare(self, shard: int) -> bool:
        """Bring a shard from S3 to this machine, or from the disk to memory, ahead of need. False where the cache has
        no room for it now."""
        if not storage.is_s3(self._url):
            # Clips come in any order; read once in order, their bytes wait in the system's cache.
            with Path(storage.join(self._url, self._shards[shard]["path"])).open("rb", buffering=0) as file:
                while file.read(1 << 20):
                    pass
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
        """The continuous factors of the frames of a clip: name to [T] values."""
        return {name: tracks[index] for name, tracks in self._tracks.items()}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_open", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._open, self._lock = OrderedDict(), threading.Lock()

    def _shard(self, number: int) -> "_OpenShard":
        """A shard, opened on first use."""
        with self._lock:
            if number not in self._open:
                self._open[number] = self._opened(number)
                self._prepared.pop(number, None)
                self._let_go()
            self._open.move_to_end(number)
            return self._open[number]

    def _opened(self, number: int) -> "_OpenShard":
        shard = self._shards[number]
        try:
            if storage.is_s3(self._url):
                found = _OpenShard(self._cache.open(self._url, shard))
            else:
                found = _OpenShard(Path(storage.join(self._url, shard["path"])).open("rb", buffering=0))  # noqa: SIM115
        except DamagedShardError:
            raise self._damage(number, "its length or SHA-256 is not the one in the manifest") from None
        except OSError as error:
            raise self._damage(number, str(error)) from None
        if found.size != shard["size_bytes"]:
            raise self._damage(number, f"it has {found.size} bytes, not {shard['size_bytes']}")
        return found

    def _let_go(self) -> None:
        """Closes shards that were not used the longest: of those from S3 so many that the cache can make room for
        others, and never more are open than a process may have files."""
        room = self._half_bytes if storage.is_s3(self._url) else math.inf
        total = sum(shard.size for shard in self._open.values())
        while len(self._open) > 1 and (total > room or len(self._open) > MOST_OPEN):
            _, oldest = self._open.popitem(last=False)
            total -= oldest.size

    def _forget(self, number: int) -> None:
        with self._lock:
            self._open.pop(number, None)
        self._cache.discard(self._shards[number])

    def _damage(self, number: int, what: str) -> DamagedDatasetError:
        return damage(self._url, self._shards[number]["path"], what)


def read_manifest(url: str) -> tuple[dict[str, Any], str]:
    """The manifest of the dataset at `url` and the SHA-256 of its bytes.

    Raises:
        UserError: there is none, it is not JSON, or it is of another format.
    """
    place = storage.join(url, "manifest.json")
    try:
        data = storage.read_bytes(place)
    except MissingFileError:
        raise UserError(
            f"{place} is missing; make the dataset with `vdsm shard --out {url}`, or let it finish"
        ) from None
    try:
        manifest = json.loads(data)
        version = manifest["schema_version"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{place} is not the manifest of a dataset") from None
    if version not in FORMATS:
        known = " and ".join(map(str, FORMATS))
        raise UserError(f"{place} has format {version}, and this program reads {known}; make the dataset again")
    return manifest, hashlib.sha256(data).hexdigest()


def read_index(url: str, shard: dict[str, Any]) -> list[dict[str, Any]]:
    """The samples of a shard that the manifest lists, from the index beside it, whose hash is checked."""
    try:
        data = storage.read_bytes(storage.join(url, shard["index"]))
    except MissingFileError:
        raise damage(url, shard["index"], "it is missing") from None
    if hashlib.sha256(data).hexdigest() != shard["index_sha256"]:
        raise damage(url, shard["index"], "its SHA-256 is not the one in the manifest")
    samples: list[dict[str, Any]] = json.loads(data)["samples"]
    return samples


def damage(url: str, path: str, what: str) -> DamagedDatasetError:
    """The error for a damaged file of the dataset at `url`."""
    return DamagedDatasetError(f"{storage.join(url, path)}: {what}; run `vdsm verify {url}` and make the shard again")


def _check_size(url: str, shard: dict[str, Any]) -> None:
    try:
        size = storage.size(storage.join(url, shard["path"]))
    except MissingFileError:
        raise damage(url, shard["path"], "it is missing") from None
    if size != shard["size_bytes"]:
        raise damage(url, shard["path"], f"it has {size} bytes, but the manifest says {shard['size_bytes']}")

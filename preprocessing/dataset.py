"""Reading a dataset: any clip by its index, with numpy alone.

Local shards are mapped into memory. Shards in S3 are fetched whole into a cache on this machine, once for all its
processes, and checked against the manifest's length and hash before they are used.
"""

import fcntl
import hashlib
import json
import mmap
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster import storage
from cluster.errors import UserError

FORMATS = (1, 2)
"""The versions of the dataset's format that are understood here."""


class DamagedDataset(UserError):
    """A file of the dataset is not what its manifest says."""


@dataclass(frozen=True)
class _Place:
    shard: int
    offset: int
    length: int
    crc32: int
    shape: tuple[int, int, int, int]


class ClipDataset:
    """The clips of one split, in the manifest's order.

    Args:
        url: folder or s3:// prefix that holds `manifest.json`.
        split: `train` or `test`.
        cache: folder for shards fetched from S3; `$VDSM_CACHE` or `~/.cache/vdsm` if absent.

    Raises:
        DamagedDataset: a shard or an index is missing, cut short or changed.
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
    fps: NDArray[np.float64]
    """Frames per second of each clip, [N]."""

    def __init__(self, url: str, split: str, cache: Path | None = None) -> None:
        self._url = url
        self._cache = cache or Path(os.environ.get("VDSM_CACHE") or Path.home() / ".cache" / "vdsm")
        self.manifest, self.manifest_sha256 = read_manifest(url)
        if split not in self.manifest["splits"]:
            raise UserError(f"{url} has no split {split}; it has {', '.join(self.manifest['splits'])}")
        self.vocabulary = self.manifest["vocabulary"]
        self._shards = [shard for shard in self.manifest["shards"] if shard["split"] == split]
        self._maps: dict[int, mmap.mmap] = {}
        self._places: list[_Place] = []
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
                self._places.append(_Place(number, *place, shape=tuple(sample["shape"])))
        self.labels = {name: np.array(values[name], dtype=np.int64) for name in self.vocabulary}
        self.factors = {n: np.array(values[n], dtype=np.float64) for n, kind in kinds.items() if kind == "clip"}
        self._tracks = {
            n: [np.array(track, dtype=np.float64) for track in values[n]]
            for n, kind in kinds.items()
            if kind == "frame"
        }
        self.clip_frames = [place.shape[0] for place in self._places]
        self.fps = np.array(rates, dtype=np.float64)

    def __len__(self) -> int:
        return len(self.keys)

    def frames(self, index: int) -> NDArray[np.uint8]:
        """The frames of a clip, uint8 [T, H, W, C], as a new array; DamagedDataset if they were changed."""
        place = self._places[index]
        shard = self._map(place.shard)
        member = memoryview(shard)[place.offset : place.offset + place.length]
        try:
            if len(member) != place.length or zlib.crc32(member) != place.crc32:
                raise self._damage(place.shard, f"clip {self.keys[index]} is not as it was written")
            # A .npy file is a header and then the values; the index tells their number.
            values = int(np.prod(place.shape))
            return np.frombuffer(member, np.uint8, values, place.length - values).reshape(place.shape).copy()
        finally:
            member.release()

    def tracks(self, index: int) -> dict[str, NDArray[np.float64]]:
        """The continuous factors of the frames of a clip: name to [T] values."""
        return {name: tracks[index] for name, tracks in self._tracks.items()}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": {}}

    def _map(self, number: int) -> mmap.mmap:
        """The bytes of a shard, mapped on first use."""
        if number not in self._maps:
            shard = self._shards[number]
            path = Path(storage.join(self._url, shard["path"]))
            if storage.is_s3(self._url):
                path = fetch(self._url, shard, self._cache)
            try:
                with path.open("rb") as file:
                    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise self._damage(number, str(error)) from None
            if len(mapped) != shard["size_bytes"]:
                raise self._damage(number, f"it has {len(mapped)} bytes, not {shard['size_bytes']}")
            self._maps[number] = mapped
        return self._maps[number]

    def _damage(self, number: int, what: str) -> DamagedDataset:
        return damage(self._url, self._shards[number]["path"], what)


def read_manifest(url: str) -> tuple[dict[str, Any], str]:
    """The manifest of the dataset at `url` and the SHA-256 of its bytes.

    Raises:
        UserError: there is none, it is not JSON, or it is of another format.
    """
    place = storage.join(url, "manifest.json")
    try:
        data = storage.read_bytes(place)
    except storage.MissingFile:
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
    except storage.MissingFile:
        raise damage(url, shard["index"], "it is missing") from None
    if hashlib.sha256(data).hexdigest() != shard["index_sha256"]:
        raise damage(url, shard["index"], "its SHA-256 is not the one in the manifest")
    samples: list[dict[str, Any]] = json.loads(data)["samples"]
    return samples


def fetch(url: str, shard: dict[str, Any], cache: Path) -> Path:
    """The local copy of a shard in S3, brought by whichever process of this machine needs it first.

    What does not have the manifest's length and hash is fetched once more, then DamagedDataset is raised.
    """
    path = cache / "shards" / f"{shard['sha256']}.tar"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # A file with this name was complete and checked before it got the name.
        if path.exists() and path.stat().st_size == shard["size_bytes"]:
            return path
        unchecked = path.with_suffix(".unchecked")
        for _ in range(2):
            storage.download(storage.join(url, shard["path"]), unchecked)
            if unchecked.stat().st_size == shard["size_bytes"] and _sha256(unchecked) == shard["sha256"]:
                return unchecked.replace(path)
        unchecked.unlink()
        raise damage(url, shard["path"], "its length or SHA-256 is not the one in the manifest")


def damage(url: str, path: str, what: str) -> DamagedDataset:
    """The error for a damaged file of the dataset at `url`."""
    return DamagedDataset(f"{storage.join(url, path)}: {what}; run `vdsm verify {url}` and make the shard again")


def _check_size(url: str, shard: dict[str, Any]) -> None:
    try:
        size = storage.size(storage.join(url, shard["path"]))
    except storage.MissingFile:
        raise damage(url, shard["path"], "it is missing") from None
    if size != shard["size_bytes"]:
        raise damage(url, shard["path"], f"it has {size} bytes, but the manifest says {shard['size_bytes']}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

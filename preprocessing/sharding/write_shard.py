"""One shard: a tar of samples, and beside it the index that is written last and so marks the tar as whole.

A sample is `<key>.frames.npy` (uint8 [T, H, W, C]) and `<key>.json`. The index holds the tar's hash and length, the
statistics of its clips, the inputs that were bad, and for every sample its labels and where its frames lie, so that
readers get at any clip without reading the tar through.
"""

import hashlib
import io
import json
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from preprocessing.clip import Clip, Clips, Item, Source, check
from preprocessing.dataset.reader import damage
from preprocessing.dataset.statistics import Statistics
from preprocessing.sharding.plan import FORMAT, ShardPlan, encode
from preprocessing.sharding.reading import read_item

_OWNER = "vdsm"

Stats = dict[str, Any]
"""The index: schema_version, plan_sha256, shard, split, sha256, size_bytes, clips, statistics, rejects, samples. A
shard whose inputs are all bad has no tar: its size is 0."""


@dataclass(frozen=True)
class Summary:
    """What the job keeps of a finished shard: little, since there may be very many."""

    index: Stats
    """The index without its samples."""
    index_sha256: str
    """Hash of the index as it is stored."""
    keys: NDArray[np.uint64]
    """Digests of the clips' keys, [N]."""
    identities: NDArray[np.uint64]
    """Digests of the identities seen, each once."""


def write_shard(
    url: str,
    plan_sha256: str,
    shard: ShardPlan,
    source: Source,
    clips: Clips | None = None,
    patience_s: float = 0.0,
) -> Summary:
    """Make the shard's clips and store tar and index below the dataset `url`.

    Args:
        clips: makes the clips of an item in place of `source.clips`.
        patience_s: how long inputs and storage that do not answer are tried again, in seconds.
    """
    rejects: list[dict[str, Any]] = []
    # Named so that what is left of it when this process is killed goes away by itself.
    with tempfile.TemporaryFile() as file:
        tar = ShardWriter(file, source)
        for item in shard.items:
            reject = _add(tar, item, clips or source.clips, patience_s)
            if reject is not None:
                rejects.append(reject)
        contents = tar.close()
        file.flush()
        if contents["clips"]:
            content, target = Path(f"/dev/fd/{file.fileno()}"), storage.join(url, shard.path)
            storage.patiently(lambda: storage.upload(content, target), patience_s)
    head = {"schema_version": FORMAT, "plan_sha256": plan_sha256, "shard": shard.path, "split": shard.split}
    samples = contents.pop("samples")
    data = encode(head | contents | {"rejects": rejects, "samples": samples})
    storage.patiently(lambda: storage.write_bytes(storage.join(url, shard.stats_path), data), patience_s)
    return summarize(data)


def _add(tar: "ShardWriter", item: Item, clips: Clips, patience_s: float) -> Stats | None:
    """Add the clips of an item; gives the record if it is bad."""
    reading = read_item(clips, item, patience_s)
    while True:
        try:
            tar.add(next(reading))
        except StopIteration as end:
            return None if end.value is None else end.value.record()


def summarize(index: bytes) -> Summary:
    """What the job keeps of a shard with this index."""
    stats = json.loads(index)
    samples = stats.pop("samples")
    return Summary(
        index=stats,
        index_sha256=hashlib.sha256(index).hexdigest(),
        keys=digests([sample["key"] for sample in samples]),
        identities=np.unique(digests([sample["identity"] for sample in samples])),
    )


def read_index_bytes(url: str, shard: dict[str, Any]) -> bytes:
    """The index that an entry of the manifest names; DamagedDatasetError if it is not there or was changed."""
    try:
        data = storage.read_bytes(storage.join(url, shard["index"]))
    except MissingFileError:
        raise damage(url, shard["index"], "it is missing") from None
    if hashlib.sha256(data).hexdigest() != shard["index_sha256"]:
        raise damage(url, shard["index"], "its SHA-256 is not the one in the manifest")
    return data


def digests(names: list[str]) -> NDArray[np.uint64]:
    """A 64-bit digest of each name."""
    joined = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(joined, dtype="<u8").astype(np.uint64)


def finished(url: str, plan_sha256: str, shard: ShardPlan) -> Summary | None:
    """The summary of a shard that is there and whole as far as its length tells; None if it is to be written."""
    try:
        summary = summarize(storage.read_bytes(storage.join(url, shard.stats_path)))
        index = summary.index
        if index["plan_sha256"] == plan_sha256 and index["shard"] == shard.path:
            if not index["clips"]:
                return summary
            return summary if storage.size(storage.join(url, shard.path)) == index["size_bytes"] else None
    except (MissingFileError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return None


class ShardWriter:
    """A tar with fixed metadata, whose bytes depend on the clips alone, and what its index says of them.

    Args:
        file: where it is written, clip by clip, so that a shard of any size takes little memory.
    """

    def __init__(self, file: IO[bytes], source: Source) -> None:
        self._file, self._source = file, source
        self._digest = hashlib.sha256()
        self._size = 0
        self._samples: list[Stats] = []
        self._statistics = Statistics(source)

    def add(self, clip: Clip) -> None:
        """Append a clip; ValueError if it is none."""
        check(clip, self._source)
        frames, about = encode_frames(clip), describe(clip)
        offset = self._member(f"{clip.key}.frames.npy", frames)
        self._member(f"{clip.key}.json", encode(about))
        place = {"frames_crc32": zlib.crc32(frames), "frames_length": len(frames), "frames_offset": offset}
        self._samples.append({"key": clip.key, "shape": list(clip.frames.shape)} | place | about)
        self._statistics.add(clip)

    def close(self) -> Stats:
        """End the tar; gives sha256, size_bytes, clips, statistics and samples."""
        if self._samples:
            end = 2 * tarfile.BLOCKSIZE
            self._write(bytes(end + -(self._size + end) % tarfile.RECORDSIZE))
        return {
            "sha256": self._digest.hexdigest(),
            "size_bytes": self._size,
            "clips": len(self._samples),
            "statistics": self._statistics.content(),
            "samples": self._samples,
        }

    def _member(self, name: str, content: bytes) -> int:
        """Append a file; gives the offset of its content."""
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.uname, info.gname = len(content), 0o444, _OWNER, _OWNER
        self._write(info.tobuf(tarfile.PAX_FORMAT))
        offset = self._size
        self._write(content)
        self._write(bytes(-len(content) % tarfile.BLOCKSIZE))
        return offset

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._size += len(data)


def describe(clip: Clip) -> dict[str, Any]:
    """What the sample's `.json` says."""
    return {
        "labels": clip.labels,
        "identity": clip.identity,
        "source": clip.source,
        "start_s": clip.start_s,
        "fps": clip.fps,
    }


def encode_frames(clip: Clip) -> bytes:
    """The sample's `.frames.npy`."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(clip.frames), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()

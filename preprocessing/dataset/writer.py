"""Writing a shard: a tar with fixed metadata, and the part of its index that describes the tar."""

import hashlib
import io
import tarfile
import zlib
from typing import IO, TypedDict

import numpy as np

from preprocessing.clip import Clip, Source, check
from preprocessing.dataset.counts import ClipCounts
from preprocessing.dataset.format import (
    DESCRIPTION_SUFFIX,
    FRAMES_SUFFIX,
    Description,
    Sample,
    encode_json,
)
from preprocessing.dataset.statistics import Statistics

_OWNER = "vdsm"


class TarContents(TypedDict):
    """The part of a shard's index that follows from its clips."""

    sha256: str
    size_bytes: int
    clips: int
    statistics: ClipCounts
    samples: list[Sample]


class ShardWriter:
    """Writes clips into a tar whose bytes depend on the clips alone.

    Args:
        file: receives the tar clip by clip, so a shard of any size needs little memory.
        source: the source of the clips; it declares their labels.
    """

    def __init__(self, file: IO[bytes], source: Source) -> None:
        self._file, self._source = file, source
        self._digest = hashlib.sha256()
        self._size = 0
        self._samples: list[Sample] = []
        self._statistics = Statistics(source)

    def add(self, clip: Clip) -> None:
        """Append a clip. Raise ValueError if it is invalid."""
        check(clip, self._source)
        frames, description = encode_frames(clip), describe(clip)
        offset = self._add_member(clip.key + FRAMES_SUFFIX, frames)
        self._add_member(clip.key + DESCRIPTION_SUFFIX, encode_json(description))
        self._samples.append(
            {
                "key": clip.key,
                "shape": list(clip.frames.shape),
                "frames_crc32": zlib.crc32(frames),
                "frames_length": len(frames),
                "frames_offset": offset,
                **description,
            }
        )
        self._statistics.add(clip)

    def close(self) -> TarContents:
        """End the tar and return what it holds. Without a clip, nothing is written."""
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

    def _add_member(self, name: str, content: bytes) -> int:
        """Append a file and return the offset of its content."""
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


def describe(clip: Clip) -> Description:
    """Return the content of the sample's `.json`."""
    return {
        "labels": clip.labels,
        "identity": clip.identity,
        "source": clip.source,
        "start_s": clip.start_s,
        "fps": clip.fps,
    }


def encode_frames(clip: Clip) -> bytes:
    """Return the content of the sample's `.frames.npy`."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(clip.frames), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()

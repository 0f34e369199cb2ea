"""Synthetic datasets for `benchmarks/scale.py`: tables of clips and indexes of shards, without a pixel.

A clip is 8 frames of 64x64x3, and a shard has 324 of them, 32.5 MB, as a dataset of Sprites has by default.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from preprocessing.clip import Clip, Factors, Item
from preprocessing.dataset.format import (
    MANIFEST,
    Manifest,
    Sample,
    ShardEntry,
    ShardIndex,
    encode_json,
    index_path,
    shard_path,
)

CLIPS_PER_SHARD = 324
CLIP_BYTES = 8 * 64 * 64 * 3 + 128
SHARD_BYTES = CLIPS_PER_SHARD * (CLIP_BYTES + 2 * 1024)
CLIPS_PER_IDENTITY = 10
BODIES = 7


class NoPixels:
    """A table of clips as the training reads it, whose shards are all on this machine and hold nothing."""

    def __init__(self, clips: int) -> None:
        self.keys = [f"clip{number:09d}" for number in range(clips)]
        self.identities = [f"one{number // CLIPS_PER_IDENTITY:08d}" for number in range(clips)]
        self.sources = self.identities
        self.starts_s = np.zeros(clips)
        self.clip_frames: NDArray[np.int64] = np.full(clips, 8, dtype=np.int64)
        self.clip_shards: NDArray[np.int64] = np.arange(clips) // CLIPS_PER_SHARD

    def frames(self, index: int) -> NDArray[np.uint8]:
        """Return a clip of zeros."""
        return np.zeros((8, 64, 64, 3), dtype=np.uint8)

    def prepare(self, shard: int) -> bool:
        """Do nothing."""
        return True


class NoInputs:
    """A source of as many inputs as one likes, each a clip, none of which is opened."""

    vocabulary: ClassVar[dict[str, list[str]]] = {"body": [str(number) for number in range(BODIES)]}
    factors: ClassVar[Factors] = {}
    untrusted = False

    def __init__(self, inputs: int) -> None:
        self._inputs = inputs

    def fingerprint(self) -> str:
        """Return the same hash for all sources."""
        return "0" * 64

    def items(self) -> list[Item]:
        """List the inputs, one in ten of the test split."""
        return [
            Item(
                key=f"clip{number:09d}", path=f"videos/{number:09d}.mp4", split="train" if number % 10 else "test",
                group=f"video{number}", clips=1, estimated_bytes=CLIP_BYTES,
            )
            for number in range(self._inputs)
        ]  # fmt: skip

    def clips(self, item: Item) -> Iterator[Clip]:
        """Yield no clip."""
        return iter([])


def shard_index(number: int, clips: int) -> ShardIndex:
    """Return the index of a shard of the training split."""
    first = number * CLIPS_PER_SHARD
    return {
        "schema_version": 2,
        "shard": shard_path("train", number),
        "split": "train",
        "sha256": f"{number:064x}",
        "size_bytes": SHARD_BYTES,
        "clips": clips,
        "statistics": {
            "frames": 8 * clips, "seconds": clips / 3, "lengths": {"8": clips}, "sizes": [[64, 64, 3]],
            "labels": {"body": {"0": clips}}, "factors": {},
            "pixels": {"count": clips * 32768, "sum": [1, 1, 1], "sum_squares": [1, 1, 1]},
        },
        "rejects": [],
        "samples": [_sample(first + row, row) for row in range(clips)],
    }  # fmt: skip


def _sample(clip: int, row: int) -> Sample:
    return {
        "key": f"clip{clip:09d}",
        "shape": [8, 64, 64, 3],
        "frames_crc32": clip,
        "frames_length": CLIP_BYTES,
        "frames_offset": 512 + row * (CLIP_BYTES + 2 * 1024),
        "labels": {"body": clip % BODIES},
        "identity": f"one{clip // CLIPS_PER_IDENTITY:08d}",
        "source": f"videos/{clip // CLIPS_PER_IDENTITY:08d}.mp4",
        "start_s": float(clip % CLIPS_PER_IDENTITY),
        "fps": 8.0,
    }


def write_indexes(folder: Path, clips: int) -> None:
    """Write manifest and indexes of a dataset of format 2; its tars are files of the right length, without data."""
    shards: list[ShardEntry] = []
    (folder / "train").mkdir(parents=True)
    for number in range(-(-clips // CLIPS_PER_SHARD)):
        index = shard_index(number, min(CLIPS_PER_SHARD, clips - number * CLIPS_PER_SHARD))
        data, path = encode_json(index), index["shard"]
        (folder / index_path(path)).write_bytes(data)
        with (folder / path).open("wb") as tar:
            tar.truncate(SHARD_BYTES)
        shards.append(
            {
                "path": path, "split": "train", "clips": index["clips"], "size_bytes": SHARD_BYTES,
                "sha256": index["sha256"], "index": index_path(path), "index_sha256": hashlib.sha256(data).hexdigest(),
            }
        )  # fmt: skip
    manifest: Manifest = {
        "schema_version": 2,
        "vocabulary": NoInputs.vocabulary,
        "factors": {},
        "clip_shape": [8, 64, 64, 3],
        "splits": {"train": {}},
        "shards": shards,
    }
    (folder / MANIFEST).write_bytes(encode_json(manifest))

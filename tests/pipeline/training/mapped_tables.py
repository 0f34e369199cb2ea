"""Tables of clips as mapped indexes of format 3, without pixels."""

import hashlib
import json
from pathlib import Path

import numpy as np

from pipeline.training.partners import ClipTable
from preprocessing.dataset.cache import ShardCache
from preprocessing.dataset.clip_index import encode_clips
from preprocessing.dataset.format import Manifest, Sample, ShardEntry, columns_path, index_path, shard_path
from preprocessing.dataset.mapped_clips import MappedClips
from preprocessing.dataset.shard_table import ShardTable, encode_table


def in_order_of_shards(table: ClipTable) -> ClipTable:
    """Return a table whose clips are numbered as a dataset numbers them: shard after shard."""
    shards = np.zeros(len(table.keys), dtype=np.int64) if table.shards is None else np.asarray(table.shards)
    by_shard = np.argsort(shards, kind="stable").tolist()
    numbers = np.unique(shards[by_shard], return_inverse=True)[1]
    keys, groups = ([column[clip] for clip in by_shard] for column in (table.keys, table.groups))
    held_out_by = None if table.held_out_by is None else [table.held_out_by[clip] for clip in by_shard]
    return ClipTable(
        keys, groups, np.asarray(table.frames)[by_shard], numbers, lone=table.lone, held_out_by=held_out_by
    )


def write_mapped(folder: Path, table: ClipTable) -> MappedClips:
    """Write the indexes of a table that is in the order of its shards, and return its clips. Groups are identities."""
    assert table.shards is not None
    entries: list[ShardEntry] = []
    for number in range(int(table.shards.max()) + 1):
        samples = [_sample(table, int(clip)) for clip in np.flatnonzero(table.shards == number)]
        data, path = encode_clips(samples, [], {}), shard_path("train", number)
        (folder / "train").mkdir(parents=True, exist_ok=True)
        (folder / columns_path(path)).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        entries.append(
            {
                "path": path, "split": "train", "clips": len(samples), "size_bytes": 10**9, "sha256": "0" * 64,
                "index": index_path(path), "index_sha256": "0" * 64, "columns_sha256": digest,
                "columns_bytes": len(data),
            }
        )  # fmt: skip
    shards = ShardTable(str(folder), "shards.arrow", encode_table(entries, ["train"]), ["train"], len(entries))
    manifest: Manifest = json.loads('{"schema_version": 3, "vocabulary": {}, "splits": {"train": {}}}')
    return MappedClips(str(folder), shards, manifest, ShardCache(folder / "cache", 10**9))


def _sample(table: ClipTable, clip: int) -> Sample:
    length = int(table.frames[clip])
    return {
        "key": table.keys[clip], "shape": [length, 1, 1, 1], "frames_crc32": 0, "frames_length": length + 128,
        "frames_offset": 512, "labels": {}, "identity": table.groups[clip], "source": table.groups[clip],
        "start_s": float(clip), "fps": 1.0,
    }  # fmt: skip

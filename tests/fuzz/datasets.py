"""The readers of the files of a dataset, for `tests.fuzz.targets`."""

import contextlib
import copy
import functools
import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.runs import store
from preprocessing.dataset import arrow_file
from preprocessing.dataset.format import MANIFEST, TABLE, encode_json
from preprocessing.dataset.reader import ClipDataset
from preprocessing.dataset.verify_dataset import verify_dataset
from tests.fuzz import seeds

VERSIONS: dict[str, Literal[2, 3]] = {"index": 2, "manifest": 2, "shard": 2, "plan": 2, "columns": 3, "table": 3}
"""Target -> format of the dataset that it changes."""


@functools.cache
def manifest(folder: Path) -> Any:
    return json.loads((folder / MANIFEST).read_bytes())


def read_dataset(folder: Path) -> None:
    """Open both splits, read clips and whatever else a training takes from a dataset, then verify it."""
    for split in ("train", "test"):
        dataset = ClipDataset(str(folder), split, cache=folder / "cache")
        store.data_hash(dataset.manifest)
        for index in range(min(3, len(dataset))):
            dataset.frames(index)
            dataset.tracks(index)
            assert dataset.keys[index]
        for name in ("labels", "factors", "fps", "starts_s", "identities", "sources"):
            assert len(getattr(dataset, name)) >= 0
        assert dataset.source["name"]
        assert len(dataset.source_sha256) in (0, 64)
        assert len(dataset.frame_shape) == 3
    if "empty" in dataset.manifest:  # version 1 can be read, not verified
        verify_dataset(str(folder))


def read_manifest(folder: Path, data: bytes) -> None:
    (folder / MANIFEST).write_bytes(data)
    read_dataset(folder)


def _with_entry(folder: Path, **changes: Any) -> None:
    """Store the manifest with a changed entry of the first shard."""
    changed = copy.deepcopy(manifest(folder))
    changed["shards"][0] |= changes
    (folder / MANIFEST).write_bytes(encode_json(changed))


def read_index(folder: Path, data: bytes) -> None:
    """Read an index that the manifest names with the right hash and the right number of clips."""
    clips = manifest(folder)["shards"][0]["clips"]
    with contextlib.suppress(Exception):
        clips = len(json.loads(data)["samples"])
    (folder / seeds.INDEX).write_bytes(data)
    _with_entry(folder, index_sha256=hashlib.sha256(data).hexdigest(), clips=clips)
    read_dataset(folder)


def read_shard(folder: Path, data: bytes) -> None:
    """Verify a tar that the manifest names with the right hash and length."""
    (folder / seeds.SHARD).write_bytes(data)
    _with_entry(folder, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
    read_dataset(folder)


@functools.cache
def _table(folder: Path) -> bytes:
    return (folder / TABLE).read_bytes()


def read_table(folder: Path, data: bytes) -> None:
    """Read a table of shards that the manifest names with the right hash and length."""
    changed = copy.deepcopy(manifest(folder))
    with contextlib.suppress(Exception):
        changed["table"]["shards"] = arrow_file.decode(data).rows
    changed["table"] |= {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": max(1, len(data))}
    (folder / MANIFEST).write_bytes(encode_json(changed))
    (folder / TABLE).write_bytes(data)
    read_dataset(folder)


def read_columns(folder: Path, data: bytes) -> None:
    """Read an Arrow index that the table names with the right hash, length and number of clips."""
    (folder / seeds.COLUMNS).write_bytes(data)
    table = arrow_file.decode(_table(folder))
    columns: dict[str, Any] = {
        name: table.ragged(name) if kind == "text" else table.array(name).copy() for name, kind in table.kinds.items()
    }
    with contextlib.suppress(Exception):
        columns["clips"][0] = arrow_file.decode(data).rows
    columns["columns_sha256"][0] = np.frombuffer(hashlib.sha256(data).digest(), dtype=np.uint8)
    columns["columns_bytes"][0] = max(1, len(data))
    read_table(folder, arrow_file.encode(columns, table.kinds))

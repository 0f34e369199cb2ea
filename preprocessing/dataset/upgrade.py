"""From format 2 to format 3, in place: Arrow indexes and a table of shards beside what is there, and the manifest last.

No shard is read, and nothing but the manifest is replaced, so a reader finds one format or the other at any time. What
is written depends on the JSON indexes alone: after an interruption, the same is written again, without what is there
already.
"""

import hashlib
from collections.abc import Callable

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from preprocessing.dataset import schema
from preprocessing.dataset.arrow_file import pyarrow
from preprocessing.dataset.clip_index import encode_clips
from preprocessing.dataset.errors import damaged_file
from preprocessing.dataset.format import COLUMNAR, MANIFEST, Manifest, ShardEntry, columns_path, index_path
from preprocessing.dataset.index import read_each, read_samples
from preprocessing.dataset.manifest import read_manifest, write_manifest


def upgrade_dataset(url: str, *, on_upgraded: Callable[[], object] = lambda: None) -> None:
    """Make format 3 of the dataset at `url`, unless it has it.

    The content hash of the data, by which runs know it, stays the same.

    Args:
        url: folder or s3:// prefix of the dataset.
        on_upgraded: called after each shard.

    Raises:
        DamagedDatasetError: an index is missing, was changed, or contradicts the manifest.
        UserError: there is no dataset, or its format is older than 2.
    """
    manifest, _ = read_manifest(url)
    if manifest["schema_version"] >= COLUMNAR:
        return
    if "empty" not in manifest:
        raise UserError(f"{url} has an older format, which can be read but not upgraded; shard the data again")
    try:
        schema.check(manifest, Manifest, complete=True)
    except schema.SchemaError as error:
        raise damaged_file(url, MANIFEST, str(error)) from None
    library: str = pyarrow().__version__
    shards: list[ShardEntry] = []
    for entry in read_each(url, lambda shard: _upgrade_shard(url, shard, manifest), manifest["shards"]):
        shards.append(entry)
        on_upgraded()
    manifest["software"] = manifest["software"] | {"pyarrow": library}
    manifest["schema_version"], manifest["shards"] = COLUMNAR, shards
    write_manifest(url, manifest)


def _upgrade_shard(url: str, shard: ShardEntry, manifest: Manifest) -> ShardEntry:
    """Write the Arrow index of a shard, unless it is there, and return the shard's entry of format 3."""
    if shard["index"] != index_path(shard["path"]):
        raise damaged_file(url, MANIFEST, f"the index of {shard['path']} is not at {index_path(shard['path'])}")
    try:
        samples = read_samples(url, shard, manifest)
        data = encode_clips(samples, manifest["vocabulary"], manifest["factors"])
    except schema.SchemaError as error:
        raise damaged_file(url, shard["index"], str(error)) from None
    path = storage.join(url, columns_path(shard["path"]))
    try:
        stored = storage.read_bytes(path)
    except MissingFileError:
        stored = b""
    if stored != data:
        storage.write_bytes(path, data)
    names = ("path", "split", "clips", "size_bytes", "sha256", "index", "index_sha256")
    kept = {name: shard[name] for name in names}  # type: ignore[literal-required]
    return {**kept, "columns_sha256": hashlib.sha256(data).hexdigest(), "columns_bytes": len(data)}  # type: ignore[typeddict-item]

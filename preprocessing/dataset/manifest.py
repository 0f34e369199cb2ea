"""Reading and writing a dataset's manifest, and the table of shards beside it."""

import hashlib

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from preprocessing.dataset import schema, shard_table
from preprocessing.dataset.cache import ShardCache
from preprocessing.dataset.errors import damaged_file
from preprocessing.dataset.format import (
    COLUMNAR,
    MANIFEST,
    READABLE_VERSIONS,
    TABLE,
    Manifest,
    ShardEntry,
    ShardTableFile,
    TableManifest,
    encode_json,
)
from preprocessing.dataset.mapped_file import map_stored
from preprocessing.dataset.shard_table import ShardTable, encode_table


def read_manifest(url: str, cache: ShardCache | None = None) -> tuple[Manifest, str]:
    """Return the manifest of the dataset at `url` and the SHA-256 of its bytes.

    Of format 3, `shards` is the mapped table, which is fetched from S3 into the cache, by default that of the user.

    Raises:
        DamagedDatasetError: a field is missing, or not as the format declares it.
        UserError: it is missing, not a manifest, or of another version; or it needs a library that is not installed.
    """
    path = storage.join(url, MANIFEST)
    try:
        data = schema.read(path)
    except MissingFileError:
        raise UserError(
            f"{path} is missing; create the dataset with `vdsm shard --out {url}`, or let that command finish"
        ) from None
    try:
        content = schema.load(data)
    except schema.SchemaError:
        content = None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if type(version) is not int:
        raise UserError(f"{path} is not the manifest of a dataset; give a folder that `vdsm shard` wrote")
    if version not in READABLE_VERSIONS:
        readable = f"{', '.join(map(str, READABLE_VERSIONS[:-1]))} and {READABLE_VERSIONS[-1]}"
        raise UserError(f"{path} has format {version}, but this version reads {readable}; shard the data again")
    try:
        schema.check(content, Manifest if version < COLUMNAR else TableManifest)
    except schema.SchemaError as error:
        raise damaged_file(url, MANIFEST, str(error)) from None
    manifest: Manifest = content
    if version >= COLUMNAR:
        manifest["shards"] = _table(url, manifest, cache)  # type: ignore[typeddict-item] # a sequence
        return manifest, hashlib.sha256(data).hexdigest()
    for number, shard in enumerate(manifest["shards"]):
        if shard["split"] not in manifest["splits"]:
            raise damaged_file(url, MANIFEST, f"shards[{number}].split is {shard['split']:.60}, which is no split")
    return manifest, hashlib.sha256(data).hexdigest()


def _table(url: str, manifest: Manifest, cache: ShardCache | None) -> ShardTable:
    table = manifest["table"]
    data = map_stored(url, table, cache, shard_table.MAX_BYTES)
    try:
        return ShardTable(url, table["path"], data, list(manifest["splits"]), table["shards"])
    except schema.SchemaError as error:
        raise damaged_file(url, table["path"], str(error)) from None


def shards_of(manifest: Manifest, split: str) -> "list[ShardEntry] | ShardTable":
    """Return the shards of a split."""
    shards: list[ShardEntry] | ShardTable = manifest["shards"]
    if isinstance(shards, ShardTable):
        return shards.of_split(split)
    return [shard for shard in shards if shard["split"] == split]


def clips_of(manifest: Manifest, split: str) -> int:
    """Return the number of clips of a split."""
    shards = shards_of(manifest, split)
    return int(shards.numbers("clips").sum()) if isinstance(shards, ShardTable) else sum(one["clips"] for one in shards)


def write_manifest(url: str, manifest: Manifest) -> None:
    """Store the manifest, which marks the dataset as complete. In format 3, the table of shards is stored before."""
    if manifest["schema_version"] < COLUMNAR:
        storage.write_bytes(storage.join(url, MANIFEST), encode_json(manifest))
        return
    splits = list(manifest["splits"])
    data = encode_table(manifest["shards"], splits)
    storage.write_bytes(storage.join(url, TABLE), data)
    table: ShardTableFile = {
        "path": TABLE, "sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data),
        "shards": len(manifest["shards"]),
    }  # fmt: skip
    content = {name: value for name, value in manifest.items() if name != "shards"} | {"table": table}
    storage.write_bytes(storage.join(url, MANIFEST), encode_json(content))

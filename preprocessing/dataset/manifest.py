"""Reading a dataset's manifest."""

import hashlib

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from preprocessing.dataset import schema
from preprocessing.dataset.errors import damaged_file
from preprocessing.dataset.format import MANIFEST, READABLE_VERSIONS, Manifest


def read_manifest(url: str) -> tuple[Manifest, str]:
    """Return the manifest of the dataset at `url` and the SHA-256 of its bytes.

    Raises:
        DamagedDatasetError: a field is missing, or not as the format declares it.
        UserError: it is missing, not a manifest, or of another version.
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
        readable = " and ".join(map(str, READABLE_VERSIONS))
        raise UserError(f"{path} has format {version}, but this version reads {readable}; shard the data again")
    try:
        schema.check(content, Manifest)
    except schema.SchemaError as error:
        raise damaged_file(url, MANIFEST, str(error)) from None
    manifest: Manifest = content
    for number, shard in enumerate(manifest["shards"]):
        if shard["split"] not in manifest["splits"]:
            raise damaged_file(url, MANIFEST, f"shards[{number}].split is {shard['split']:.60}, which is no split")
    return manifest, hashlib.sha256(data).hexdigest()

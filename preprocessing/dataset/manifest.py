"""Reading a dataset's manifest."""

import hashlib
import json

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from preprocessing.dataset.format import MANIFEST, READABLE_VERSIONS, Manifest


def read_manifest(url: str) -> tuple[Manifest, str]:
    """Return the manifest of the dataset at `url` and the SHA-256 of its bytes.

    Raises:
        UserError: it is missing, not a manifest, or of another version.
    """
    path = storage.join(url, MANIFEST)
    try:
        data = storage.read_bytes(path)
    except MissingFileError:
        raise UserError(
            f"{path} is missing; create the dataset with `vdsm shard --out {url}`, or let that command finish"
        ) from None
    try:
        manifest: Manifest = json.loads(data)
        version = manifest["schema_version"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not the manifest of a dataset; give a folder that `vdsm shard` wrote") from None
    if version not in READABLE_VERSIONS:
        readable = " and ".join(map(str, READABLE_VERSIONS))
        raise UserError(f"{path} has format {version}, but this version reads {readable}; shard the data again")
    return manifest, hashlib.sha256(data).hexdigest()

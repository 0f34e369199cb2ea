"""The error for a dataset whose files do not match its manifest."""

from cluster.errors import UserError
from cluster.storage import api as storage

HASH_MISMATCH = "its SHA-256 does not match the manifest"


class DamagedDatasetError(UserError):
    """A file of the dataset is missing, cut short or changed."""


def damaged_file(url: str, path: str, problem: str) -> DamagedDatasetError:
    """Return the error for the file `path` of the dataset at `url`."""
    return DamagedDatasetError(
        f"{storage.join(url, path)}: {problem}; delete any damaged copy, rerun `vdsm shard`, then `vdsm verify {url}`"
    )

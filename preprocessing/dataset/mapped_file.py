"""The Arrow files of a dataset as mapped memory, of which a machine has one copy: in place, or in the cache."""

import hashlib
import mmap

from cluster.storage import api as storage
from cluster.storage import os_errors
from cluster.storage.errors import MissingFileError
from preprocessing.dataset import arrow_file, schema
from preprocessing.dataset.cache import CACHE_BYTES, DamagedShardError, ShardCache, cache_folder
from preprocessing.dataset.errors import HASH_MISMATCH, damaged_file
from preprocessing.dataset.format import StoredFile


def map_stored(url: str, file: StoredFile, cache: ShardCache | None = None, limit: int = schema.MAX_BYTES) -> mmap.mmap:
    """Return the content of a file of the dataset at `url`, whose length and hash are those that it should have.

    Args:
        url: the dataset.
        file: the file, as the manifest or the table names it.
        cache: the cache that a file in S3 is fetched into; by default that of the user.
        limit: largest accepted file, in bytes.

    Raises:
        DamagedDatasetError: it is missing, too large, or was changed.
    """
    path = file["path"]
    try:
        if file["size_bytes"] > limit:
            raise schema.SchemaError(f"has more than {limit:,} bytes, which is the limit")
        if not storage.is_remote(url):
            data = arrow_file.map_file(storage.join(url, path), limit)
            if not _is_intact(data, file):
                raise damaged_file(url, path, HASH_MISMATCH)
            return data  # type: ignore[return-value] # it is not empty
        cache = cache or ShardCache(cache_folder(), CACHE_BYTES)
        for _ in range(2):
            with cache.open(url, file) as opened:  # closed again: mapped memory outlives an eviction
                data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
            if _is_intact(data, file):
                return data
            cache.discard(file)  # the copy was changed after its download
        raise DamagedShardError(path)
    except schema.SchemaError as error:
        raise damaged_file(url, path, str(error)) from None
    except (FileNotFoundError, MissingFileError):
        raise damaged_file(url, path, "it is missing") from None
    except DamagedShardError:
        raise damaged_file(url, path, "its length or SHA-256 does not match the manifest") from None
    except OSError as error:
        if os_errors.cause_of(error) is None:
            raise damaged_file(url, path, str(error)) from None
        os_errors.explain(storage.join(url, path), error)


def _is_intact(data: mmap.mmap | bytes, file: StoredFile) -> bool:
    return len(data) == file["size_bytes"] and hashlib.sha256(data).hexdigest() == file["sha256"]

"""Shards verified in parallel, one Ray task each."""

from collections.abc import Iterator, Sequence
from typing import cast

from cluster.ray_tasks import MAX_RETRIES, run_tasks
from preprocessing.dataset.errors import DamagedDatasetError
from preprocessing.dataset.format import ManifestHead, ShardEntry
from preprocessing.dataset.index import ShardSummary
from preprocessing.dataset.verify_shard import VerificationError, verify_shard


def verify_in_tasks(
    url: str, shards: Sequence[ShardEntry], head: ManifestHead, decode: float, *, limit: int
) -> Iterator[tuple[ShardEntry, ShardSummary]]:
    """Verify shards as Ray tasks, and yield each with the summary of its index when it is verified.

    Ray must be connected.

    Args:
        url: the dataset, which all nodes reach at this address.
        shards: entries of the manifest.
        head: the manifest, without or with its shards.
        decode: share of the clips whose frames are decoded.
        limit: number of shards that are verified at the same time.

    Raises:
        VerificationError: a shard differs from its index or from the manifest.
        DamagedDatasetError: an index is missing or was changed.
        UserError: the storage is at fault, or Ray itself failed.
    """
    import ray

    task = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(_verify)
    # Stored once: there may be many label names. Without the shards, of which there may be more.
    without_shards = {name: value for name, value in head.items() if name not in ("shards", "empty")}
    stored = ray.put(cast(ManifestHead, without_shards))
    for shard, found in run_tasks(lambda one: task.remote(url, one, stored, decode), shards, limit):
        if isinstance(found, Exception):
            raise found
        yield shard, found


def _verify(
    url: str, shard: ShardEntry, head: ManifestHead, decode: float
) -> ShardSummary | VerificationError | DamagedDatasetError:
    """Return what `verify_shard` returns or raises."""
    try:
        return verify_shard(url, shard, head, decode)
    except (VerificationError, DamagedDatasetError) as damage:
        return damage

"""Shards written in parallel, one Ray task each."""

import functools
from collections.abc import Callable, Iterator, Sequence

from cluster.ray_tasks import MAX_RETRIES, run_tasks
from preprocessing.clip import Fetching, Source
from preprocessing.dataset.index import ShardSummary
from preprocessing.decoding.sandbox import DecodeProcess
from preprocessing.recipe import DataRecipe, ShardsConfig
from preprocessing.sharding.plan import Plan, ShardPlan
from preprocessing.sharding.write_shard import write_shard
from preprocessing.sources.registry import open_serialized_source, serialize_source


def concurrency(recipe: DataRecipe) -> int:
    """Return how many shards are written at the same time on the connected Ray."""
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return recipe.shards.concurrency or max(1, int(resources.get("CPU", 1)))


def write_shards(
    url: str, plan: Plan, missing: Sequence[ShardPlan], recipe: DataRecipe, source: Source
) -> Iterator[tuple[ShardPlan, ShardSummary]]:
    """Write the `missing` shards of a plan to the dataset `url`, and yield each when it is finished.

    Ray must be connected.

    Raises:
        UserError: raised by the source or the storage in a task; or Ray itself failed.
    """
    import ray

    write = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(_write)
    # Stored once: there may be many label names.
    serialized = ray.put(serialize_source(recipe.source, recipe.seed, source))
    shards = recipe.shards.model_dump_json()
    yield from run_tasks(
        lambda shard: write.remote(url, plan.identity, shard, serialized, shards), missing, concurrency(recipe)
    )


def _write(url: str, plan_sha256: str, shard: ShardPlan, serialized: str, shards: str) -> ShardSummary:
    source = _source(serialized)
    clips = _decoder(serialized, shards).clips if source.untrusted else source.clips
    patience_s = ShardsConfig.model_validate_json(shards).patience_seconds
    return write_shard(url, plan_sha256, shard, source, clips, patience_s)


@functools.lru_cache(maxsize=1)
def _source(serialized: str) -> Source:
    """Return the source, opened once per worker process."""
    return open_serialized_source(serialized)


@functools.lru_cache(maxsize=1)
def _decoder(serialized: str, shards: str) -> DecodeProcess:
    """Return the decoding process, started once per worker process."""
    return make_decoder(_source(serialized), serialized, ShardsConfig.model_validate_json(shards))


def make_decoder(
    source: Source, serialized: str, limits: ShardsConfig, open_source: Callable[[str], Source] = open_serialized_source
) -> DecodeProcess:
    """Return a process that decodes the inputs of a source, which it opens by its description."""
    return DecodeProcess(
        open_source,
        serialized,
        cpu_seconds=limits.decode_seconds,
        memory_mb=limits.decode_mb,
        fetch=source.fetch if isinstance(source, Fetching) else None,
    )

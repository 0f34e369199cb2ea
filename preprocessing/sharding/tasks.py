"""Shards written side by side, one Ray task each."""

import functools
from collections import deque
from collections.abc import Iterator, Sequence

from cluster.errors import UserError
from preprocessing.clip import Source
from preprocessing.decoding.sandbox import DecodeProcess
from preprocessing.recipe import DataRecipe, ShardsConfig
from preprocessing.sharding.plan import Plan, ShardPlan
from preprocessing.sharding.write_shard import Summary, write_shard
from preprocessing.sources.registry import open_serialized_source, serialize_source

DEATHS = 10
"""How often a task is run again whose worker died."""


def tasks_at_once(recipe: DataRecipe) -> int:
    """How many shards are written at the same time on the Ray that is connected."""
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return recipe.shards.concurrency or max(1, int(resources.get("CPU", 1)))


def write_shards(
    url: str, plan: Plan, missing: Sequence[ShardPlan], recipe: DataRecipe, source: Source
) -> Iterator[tuple[ShardPlan, Summary]]:
    """Write the `missing` shards of a plan below `url`; gives each as it gets ready.

    Ray must be connected. A task whose worker dies is run again by Ray.

    Raises:
        UserError: as the source or the storage raised it in a task; or Ray itself failed.
    """
    import ray

    write = ray.remote(num_cpus=1, max_retries=DEATHS)(_write)
    # Stored once: the names of labels may be many.
    opened = ray.put(serialize_source(recipe.source, recipe.seed, source))
    shards = recipe.shards.model_dump_json()
    limit = tasks_at_once(recipe)
    waiting = deque(missing)
    running: dict[ray.ObjectRef[Summary], ShardPlan] = {}
    try:
        while waiting or running:
            while waiting and len(running) < limit:
                shard = waiting.popleft()
                running[write.remote(url, plan.identity, shard, opened, shards)] = shard
            done, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
            for reference in done:
                yield running.pop(reference), ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise UserError(str(error.cause)) from None
        raise
    except (ray.exceptions.RayError, ConnectionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"Ray failed ({reason:.200}); start the same command again, it goes on from here") from None


def _write(url: str, plan_sha256: str, shard: ShardPlan, source: str, shards: str) -> Summary:
    made = _source(source)
    clips = _decoder(source, shards).clips if made.untrusted else made.clips
    patience_s = ShardsConfig.model_validate_json(shards).patience_seconds
    return write_shard(url, plan_sha256, shard, made, clips, patience_s)


@functools.lru_cache(maxsize=1)
def _source(order: str) -> Source:
    """The source, opened once per worker process."""
    return open_serialized_source(order)


@functools.lru_cache(maxsize=1)
def _decoder(order: str, shards: str) -> DecodeProcess:
    """The process that decodes, started once per worker process."""
    limits = ShardsConfig.model_validate_json(shards)
    return DecodeProcess(
        open_serialized_source, order, cpu_seconds=limits.decode_seconds, memory_mb=limits.decode_mb
    )

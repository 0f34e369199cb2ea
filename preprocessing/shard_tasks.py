"""Shards written side by side, one Ray task each."""

import functools
from collections import deque
from collections.abc import Iterator, Sequence

from cluster.errors import UserError
from preprocessing.clip import Source
from preprocessing.config import DataRecipe, SourceConfig
from preprocessing.plan import Plan, ShardPlan
from preprocessing.progress import Progress
from preprocessing.shard_file import Stats, write_shard
from preprocessing.sources import make_source


def write_shards(url: str, plan: Plan, missing: Sequence[ShardPlan], recipe: DataRecipe) -> Iterator[Stats]:
    """Write the `missing` shards of a plan below `url`; gives the index of each as it gets ready.

    Ray must be connected. A task whose worker dies is run again by Ray.

    Raises:
        UserError: as the source or the storage raised it in a task.
    """
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    limit = recipe.shards.concurrency or max(1, int(resources.get("CPU", 1)))
    write = ray.remote(num_cpus=1, max_retries=3)(_write)
    source, identity = recipe.source.model_dump_json(), plan.sha256()
    waiting, running = deque(missing), list[ray.ObjectRef[Stats]]()
    total_bytes = sum(item.estimated_bytes for shard in missing for item in shard.items)
    with Progress(shards=len(missing), total_bytes=total_bytes) as progress:
        while waiting or running:
            while waiting and len(running) < limit:
                running.append(write.remote(url, identity, waiting.popleft(), source, recipe.seed))
            done, running = ray.wait(running, num_returns=1, timeout=1.0)
            for reference in done:
                try:
                    stats: Stats = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    if isinstance(error.cause, UserError):
                        raise UserError(str(error.cause)) from None
                    raise
                progress.advance(clips=stats["clips"], size=stats["size_bytes"])
                yield stats
            progress.refresh()


def _write(url: str, plan_sha256: str, shard: ShardPlan, source: str, seed: int) -> Stats:
    return write_shard(url, plan_sha256, shard, _source(source, seed))


@functools.lru_cache(maxsize=1)
def _source(config: str, seed: int) -> Source:
    """The source, opened once per worker process."""
    return make_source(SourceConfig.model_validate_json(config), seed)

"""Train a run under Ray Train, from its current position to its end."""

import logging
import os

from cluster import ray_runtime
from cluster.extras import require
from cluster.storage.fence import active_fences
from pipeline.recipe import Recipe
from pipeline.runs.begin import Beginning, locked_run
from pipeline.training.config import TrainingConfig

log = logging.getLogger(__name__)


def train_recipe(recipe: Recipe, data: str, run: str, *, profile: bool = False) -> None:
    """Train the run at `run` to its end, or resume it from its newest checkpoint.

    Args:
        recipe: settings of the model and of the training.
        data: the dataset, as an absolute path or URL.
        run: folder of the run, as an absolute path or URL.
        profile: keep a trace of torch's profiler in the folder of the run.

    Raises:
        UserError: the run was started with other settings or data, this machine lacks memory, or the training failed
            because of invalid input.
        KeyboardInterrupt: Ctrl-C, after a checkpoint was saved.
    """
    from pipeline.ray_train.dry_run import check_memory

    require("ray")
    check_memory(recipe)
    with locked_run(recipe, data, run) as beginning:
        if beginning is None:
            return
        with ray_runtime.connect(num_cpus=local_cpus(recipe.training)):
            _train(beginning, data, run, profile)


def local_cpus(training: TrainingConfig) -> int:
    """Return the CPUs that a local Ray needs: those of the workers, or all of this process if they are more."""
    return max(training.num_workers * training.threads_per_worker, len(os.sched_getaffinity(0)))


def _train(beginning: Beginning, data: str, run: str, profile: bool) -> None:
    from pipeline.ray_train.driver import fit
    from pipeline.runs.log import RunLog
    from pipeline.runs.work import WorkerConfig
    from pipeline.training.position import START

    worker_config = WorkerConfig(
        recipe=beginning.recipe,
        data=data,
        manifest_sha256=beginning.manifest_sha256,
        run_url=run,
        profile=profile,
        fences=active_fences(),
    )
    settings = beginning.recipe.model_dump(mode="json")
    with RunLog(run, beginning.recipe.training, beginning.position or START, settings) as run_log:
        outcome = fit(worker_config, run_log)
        run_log.end(outcome)
    log.info("finished: %s", run)

"""One round of trials under Ray Tune, as many in parallel as the cluster has room for."""

import functools
import logging
import os
import time
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

from cluster.storage.lock import RENEWAL_S
from pipeline.tuning.live_table import LiveTable
from pipeline.tuning.pruning import CheckpointPruner
from pipeline.tuning.searcher import StudySearcher, check_lock
from pipeline.tuning.space import Space
from pipeline.tuning.trial import SweepContext, run_trial

if TYPE_CHECKING:
    from optuna import Study


TRIAL_BYTES = 500_000_000
"""Memory reserved for the process of a trial, not counting its training workers."""


class RefreshTable(tune.Callback):
    """Refreshes the table of trials after each step of Ray Tune's event loop, a few times a second.

    It also ends the sweep once its lock is lost.
    """

    def __init__(self, table: LiveTable) -> None:
        self._table, self._checked_at = table, time.monotonic()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Refresh the table, and check the lock every few seconds."""
        self._table.refresh()
        if time.monotonic() - self._checked_at > RENEWAL_S:
            self._checked_at = time.monotonic()
            check_lock()


def run_round(
    study: "Study", space: Space, context: SweepContext, trials: int, steps_fraction: float, title: str
) -> None:
    """Run trials until `trials` of the study are finished, or until Ctrl-C. Requires a connection to Ray.

    A trial that raises is recorded and does not end the sweep. A trial whose process dies is restarted and resumes.
    """
    # Results go to the study and to the run folders, so Ray Tune's own files and tables are redundant.
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    training = space.recipe({}).training
    cpus = training.num_workers * training.threads_per_worker
    gpus = training.num_workers if training.use_gpu else 0
    pruner = CheckpointPruner(study, context)
    pruner.prune()  # what a killed driver left
    with LiveTable(study, context, trials, title) as table:
        tune.Tuner(
            # The trial's own process only waits for its training workers, so it reserves none of their CPUs.
            tune.with_resources(
                functools.partial(_trainable, context=context, space=space, steps_fraction=steps_fraction),
                {"memory": TRIAL_BYTES},
            ),
            tune_config=tune.TuneConfig(
                search_alg=StudySearcher(
                    study, space, trials, steps_fraction, context.sweep.objectives, on_ended=pruner.prune
                ),
                num_samples=trials,
                max_concurrent_trials=context.sweep.concurrent_trials or parallel_trials(cpus, gpus),
                reuse_actors=False,
                trial_dirname_creator=lambda trial: f"trial-{trial.config['number']}",
            ),
            run_config=tune.RunConfig(
                name="ray-tune",
                storage_path=context.url,
                failure_config=tune.FailureConfig(max_failures=training.max_failures),
                callbacks=[RefreshTable(table)],
                verbose=0,
            ),
        ).fit()


def parallel_trials(cpus: int, gpus: int) -> int:
    """Return how many trials of this many CPUs and GPUs fit on the cluster now; at least 1, because it may grow."""
    available: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    fitting = [available.get("CPU", 0) // cpus]
    if gpus:
        fitting.append(available.get("GPU", 0) // gpus)
    return max(1, int(min(fitting)))


def _trainable(config: dict[str, Any], context: SweepContext, space: Space, steps_fraction: float) -> None:
    tune.report(run_trial(config, space.recipe(config["values"], steps_fraction), context))

"""A round of trials by Ray Tune: as many side by side as the cluster holds."""

import functools
import logging
import os
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

from pipeline.tuning.board import Board
from pipeline.tuning.search import StudySearch
from pipeline.tuning.space import Space
from pipeline.tuning.trial import SweepContext, run_trial

if TYPE_CHECKING:
    from optuna import Study


TRIAL_BYTES = 500_000_000
"""Memory of a trial beside its workers."""


class Watch(tune.Callback):
    """Shows the state of the study whenever Ray Tune has looked at its trials."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called a few times a second."""
        self._board.refresh()


def run_round(study: "Study", space: Space, setting: SweepContext, trials: int, steps_fraction: float) -> None:
    """Run trials until `trials` of the study are settled, or until ctrl-C. Needs a connection to Ray.

    A trial that raises is recorded and ends by itself; one whose process dies is started again and goes on.
    """
    # Results go to the study and to the folders of the runs; Ray Tune's own files and tables would only repeat them.
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    recipe = space.recipe({})
    training = recipe.training
    cpus = training.num_workers * training.threads_per_worker
    at_once = setting.sweep.concurrent_trials or slots(cpus, training.num_workers if training.use_gpu else 0)
    with Board(study, setting, trials) as board:
        tune.Tuner(
            # The trial itself only waits for its workers, so it takes no CPU from them.
            tune.with_resources(functools.partial(_trainable, setting=setting), {"memory": TRIAL_BYTES}),
            tune_config=tune.TuneConfig(
                search_alg=StudySearch(study, space, trials, steps_fraction, setting.sweep.names),
                num_samples=trials,
                max_concurrent_trials=at_once,
                reuse_actors=False,
                trial_dirname_creator=lambda trial: f"trial-{trial.config['number']}",
            ),
            run_config=tune.RunConfig(
                name="ray-tune",
                storage_path=setting.url,
                failure_config=tune.FailureConfig(max_failures=training.max_failures),
                callbacks=[Watch(board)],
                verbose=0,
            ),
        ).fit()


def slots(cpus: int, gpus: int) -> int:
    """How many trials of so many CPUs and GPUs the cluster holds now; one at least, for it may grow."""
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    fits = [there.get("CPU", 0) // cpus]
    if gpus:
        fits.append(there.get("GPU", 0) // gpus)
    return max(1, int(min(fits)))


def _trainable(config: dict[str, Any], setting: SweepContext) -> None:
    tune.report(run_trial(config, setting))

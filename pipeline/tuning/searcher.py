"""Connects Ray Tune to an Optuna study: takes the next trial from the study and records how each trial ends.

Ray ships an adapter of its own, `OptunaSearch`, but it cannot record why a trial failed, and it cannot resume a study
that is ahead of Ray's snapshot after a crash. Here the study is the only record, and Ray's snapshot is never read.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from ray.tune.search import Searcher

from cluster.storage import api as storage
from cluster.storage.errors import StorageError
from cluster.storage.fence import check_all
from pipeline.tuning.identity import run_name
from pipeline.tuning.parameter_names import naming_of
from pipeline.tuning.space import Space
from pipeline.tuning.study import ERROR, RUN, finished_trials

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial

log = logging.getLogger(__name__)


LOCK_PATIENCE_S = 60.0
"""Seconds for which the check of the lock is retried while storage is unreachable."""


def check_lock() -> None:
    """Raise StorageError if this process has lost the lock of its sweep or of its study."""
    storage.retry_while_unreachable(check_all, LOCK_PATIENCE_S)


class StudySearcher(Searcher):
    """Ray Tune's source of trials, backed by an Optuna study.

    Args:
        study: must hold no trial that another driver is running.
        space: the searched settings.
        trials: the search ends when this many trials are finished.
        steps_fraction: fraction of the recipe's steps that each trial trains.
        objectives: keys of a trial's result that are reported to the study.
        on_ended: called after the end of a trial was recorded.
    """

    def __init__(
        self,
        study: "Study",
        space: Space,
        trials: int,
        steps_fraction: float,
        objectives: tuple[str, ...],
        on_ended: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self._study, self._space, self._trials = study, space, trials
        self._steps_fraction, self._objectives, self._on_ended = steps_fraction, objectives, on_ended
        self._parameter_name = naming_of(study)
        self._running: dict[str, tuple[Trial, str]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override] # FINISHED is a string
        """Return the run name and values of the next trial, or `FINISHED`. Raise StorageError if the lock was lost.

        Ray Tune keeps several copies of it for each trial, all of which it writes again and again: the recipe, which
        follows from the values, is not part of it.
        """
        check_lock()
        while len(finished_trials(self._study)) + len(self._running) < self._trials:
            trial = self._study.ask()
            values = self._space.suggest(trial, self._parameter_name)
            try:
                recipe = self._space.recipe(values, self._steps_fraction)
            except ValidationError as error:
                # An invalid combination inside the ranges; only their ends were checked before the sweep.
                self._fail(trial, " ".join(error.errors(include_url=False)[0]["msg"].split()))
                continue
            run = run_name(recipe)
            while any(run == other for _, other in self._running.values()):
                run += "x"  # the same values are being trained now: use another folder
            trial.set_user_attr(RUN, run)
            self._running[trial_id] = (trial, run)
            return {"run": run, "number": trial.number, "values": values}
        return Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Record in the study how a trial ended, unless the lock of the sweep was lost."""
        try:
            check_lock()
        except StorageError as error:  # Ray Tune would take it for an error of the trial; `suggest` raises it again
            log.warning("%s", error)
            return
        trial, _ = self._running.pop(trial_id, (None, None))
        if trial is None:
            return
        result = result or {}
        if "error" in result:
            self._fail(trial, str(result["error"]))
        elif error or not all(name in result for name in self._objectives):
            self._fail(trial, "its process died more often than max_failures allows")
        else:
            self._study.tell(trial, [float(result[name]) for name in self._objectives])
        self._on_ended()

    def _fail(self, trial: "Trial", reason: str) -> None:
        from optuna.trial import TrialState

        log.warning("trial %d failed: %s", trial.number, reason)
        trial.set_user_attr(ERROR, reason)
        self._study.tell(trial, state=TrialState.FAIL)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the study is the only record."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing, as in `save`."""

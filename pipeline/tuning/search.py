"""How Ray Tune gets trials from the study and gives their results back.

Ray has such an adapter of its own, which cannot say why a trial failed, nor go on with a study that is ahead of Ray's
own snapshot after a crash. Here the snapshot counts for nothing: the study alone is read.
"""

import logging
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from ray.tune.search import Searcher

from pipeline.tuning.space import Space
from pipeline.tuning.study import ERROR, RUN, run_name, settled

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial

log = logging.getLogger(__name__)


class StudySearch(Searcher):
    """Asks an Optuna study for trials.

    Args:
        study: with no trial of another driver running in it.
        space: what is searched.
        trials: ends when so many trials are settled.
        steps_fraction: share of the recipe's steps that each trial trains.
        names: the objectives, as the results of trials name them.
    """

    def __init__(
        self, study: "Study", space: Space, trials: int, steps_fraction: float, names: tuple[str, ...]
    ) -> None:
        super().__init__()
        self._study, self._space, self._trials = study, space, trials
        self._steps_fraction, self._names = steps_fraction, names
        self._running: dict[str, tuple[Trial, str]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override] # FINISHED is a word
        """The run and the recipe of the next trial, or `FINISHED`."""
        while len(settled(self._study)) + len(self._running) < self._trials:
            trial = self._study.ask()
            values = self._space.suggest(trial)
            try:
                recipe = self._space.recipe(values, self._steps_fraction)
            except ValidationError as error:
                # Values that go together badly, between the ends that were checked before the sweep.
                self._fail(trial, " ".join(error.errors(include_url=False)[0]["msg"].split()))
                continue
            run = run_name(recipe)
            while any(run == other for _, other in self._running.values()):
                run += "x"  # the same values are being trained: another folder
            trial.set_user_attr(RUN, run)
            self._running[trial_id] = (trial, run)
            return {"run": run, "number": trial.number, "values": values, "recipe": recipe.model_dump(mode="json")}
        return Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the study how a trial ended."""
        trial, _ = self._running.pop(trial_id, (None, None))
        if trial is None:
            return
        result = result or {}
        if "error" in result:
            self._fail(trial, str(result["error"]))
        elif error or not all(name in result for name in self._names):
            self._fail(trial, "its process died more often than max_failures allows")
        else:
            self._study.tell(trial, [float(result[name]) for name in self._names])

    def _fail(self, trial: "Trial", why: str) -> None:
        from optuna.trial import TrialState

        log.warning("trial %d failed: %s", trial.number, why)
        trial.set_user_attr(ERROR, why)
        self._study.tell(trial, state=TrialState.FAIL)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is its own record."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""

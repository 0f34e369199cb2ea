"""Which trials keep their checkpoints: without a limit, a sweep of thousands of trials fills any disk."""

from pathlib import Path
from typing import TYPE_CHECKING

from cluster.storage import api as storage
from pipeline.runs.checkpoints import FOLDER, stage_file
from pipeline.tuning.study import RUN, finished_trials, ranked_trials
from pipeline.tuning.trial import SweepContext

if TYPE_CHECKING:
    from optuna import Study


class CheckpointPruner:
    """Deletes the checkpoints of trials that ended, except those of the best `sweep.keep`.

    Settings, logs and scores stay, so that an equal trial has its scores without being trained.
    """

    def __init__(self, study: "Study", context: SweepContext) -> None:
        self._study, self._context = study, context
        self._pruned: set[str] = set()

    def prune(self) -> None:
        """Delete what may be deleted by now. Does nothing where all are kept."""
        keep = self._context.sweep.keep
        if keep is None:
            return
        kept = {trial.user_attrs.get(RUN) for trial in ranked_trials(self._study)[:keep]}
        ended = {trial.user_attrs.get(RUN) for trial in finished_trials(self._study)}
        for run in sorted(run for run in ended - kept - self._pruned if run is not None):
            delete_checkpoints(self._context.run_url(run))
            self._pruned.add(run)


def delete_checkpoints(run: str) -> None:
    """Delete the checkpoints in the folder of a run, which must not be training."""
    folder = storage.join(run, FOLDER)
    if storage.is_remote(run) or Path(folder).is_dir():
        for name in storage.list_files(folder):
            storage.delete(storage.join(folder, name))
    for stage in (1, 2):
        storage.delete(stage_file(run, stage))

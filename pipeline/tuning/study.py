"""The Optuna study of a sweep, which is its only record: after any process dies, it shows what is left to do.

A study is kept in a journal file on a disk that outlives the driver (local or shared), or in a database.
"""

import contextlib
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import UserError
from cluster.storage.errors import StorageError
from cluster.storage.own_file import drop_torn_line, open_own_file
from pipeline.recipe import Recipe
from pipeline.tuning.identity import digest, sweep_identity
from pipeline.tuning.parameter_names import current_params, naming_of, queued_params
from pipeline.tuning.sweep import Sweep

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

RUN = "run"
"""Attribute of a trial: the name of its run's folder."""
ERROR = "error"
"""Attribute of a failed trial: why it failed. An interrupted trial has none and is rerun."""
_IDENTITY = "sweep"
_DRIVER = "driver"


def storage_of(url: str) -> "BaseStorage":
    """Return the storage at the path of a journal file or the URL of a database (`postgresql://...`).

    Raises:
        UserError: the database cannot be reached, or its URL is invalid; or the file is damaged, or cannot be written.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if "://" not in url:
        return _journal(Path(url))
    try:
        return optuna.storages.RDBStorage(url)
    except Exception as error:  # from any database driver; its text may contain the password
        scheme = url.partition("://")[0]
        raise UserError(
            f"cannot use the {scheme} database of --study ({type(error).__name__}); check its address and password, "
            f"and that the driver for {scheme} is installed"
        ) from None


def _journal(path: Path) -> "BaseStorage":
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    class Lock(JournalFileOpenLock):
        """The lock of a journal, under which a part of a line that a killed driver left at its end is removed.

        It is a file, not a symbolic link, which some file systems refuse.
        """

        def acquire(self) -> bool:
            acquired = super().acquire()
            try:
                with open_own_file(path) as file:
                    drop_torn_line(file, path)
            except BaseException:
                self.release()
                raise
            return acquired

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        open_own_file(path).close()
        return JournalStorage(JournalFileBackend(str(path), Lock(str(path))))
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # from Optuna's reading of a file that may hold anything
        raise UserError(
            f"{path} is damaged, or is not a study ({type(error).__name__}: {str(error)[:200]}); restore a copy, or "
            "choose another --name or --study"
        ) from None


def open_study(url: str, name: str, sweep: Sweep, recipe: Recipe) -> "Study":
    """Return the study `name` at a path or database URL, created if it does not exist, with the sweep's sampler.

    Raises:
        UserError: the study was started with another space, objective or recipe.
    """
    import optuna

    study = optuna.create_study(
        storage=storage_of(url),
        study_name=name,
        directions=list(sweep.directions),
        sampler=_sampler(sweep),
        load_if_exists=True,
    )
    with _experimental():
        study.set_metric_names(list(sweep.objectives))
    identity = sweep_identity(sweep, recipe)
    stored = study.user_attrs.get(_IDENTITY)
    if stored is None:
        study.set_user_attr(_IDENTITY, identity)
    elif stored != identity:
        changed = [part for part in identity if stored.get(part) != identity[part]]
        raise UserError(
            f"study {name} in {url.partition('://')[0] if '://' in url else url} was started with another "
            f"{' and another '.join(changed)}; restore the old one, or give the new sweep another --name"
        )
    return study


def _sampler(sweep: Sweep) -> Any:
    import optuna

    if len(sweep.objectives) > 1:
        return optuna.samplers.NSGAIISampler(seed=sweep.seed, population_size=max(4, sweep.startup_trials))
    with _experimental():
        # `group` is required for spaces with conditions.
        return optuna.samplers.TPESampler(
            multivariate=True, group=True, n_startup_trials=sweep.startup_trials, seed=sweep.seed
        )


@contextlib.contextmanager
def _experimental() -> Iterator[None]:
    """Silence Optuna's warning about experimental features; constraints.txt pins the tested version."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def drive(study: "Study") -> Callable[[], None]:
    """Make this process the driver of a study; return a check that raises StorageError once another one drives it.

    Drivers with different folders hold different locks, and may still name the same study.
    """
    token = uuid.uuid4().hex
    study.set_user_attr(_DRIVER, token)

    def check() -> None:
        if study.user_attrs.get(_DRIVER) != token:
            raise StorageError(f"study {study.study_name}: another driver took over this study; this one stops")

    return check


def requeue_interrupted(study: "Study") -> int:
    """Fail the trials that another driver left running, and requeue their values; return their number.

    The caller must hold the sweep's lock, because only one driver may run a sweep at a time.
    """
    from optuna.trial import TrialState

    interrupted = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for trial in interrupted:
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params)
    return len(interrupted)


def finished_trials(study: "Study") -> list["FrozenTrial"]:
    """Return the trials that count: complete ones, and those that failed because of an error in the trial."""
    from optuna.trial import TrialState

    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))
    return [trial for trial in ended if trial.state == TrialState.COMPLETE or ERROR in trial.user_attrs]


def ranked_trials(study: "Study") -> list["FrozenTrial"]:
    """Return the complete trials, best first; with several objectives the Pareto front first."""
    from optuna.study import StudyDirection
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    signs = [-1.0 if direction == StudyDirection.MAXIMIZE else 1.0 for direction in study.directions]
    front = {trial.number for trial in study.best_trials} if trials and len(signs) > 1 else set[int]()
    return sorted(
        trials,
        key=lambda trial: (trial.number not in front, [sign * value for sign, value in zip(signs, trial.values)]),
    )


def promote(study: "Study", into: "Study", count: int) -> None:
    """Queue the values of the best `count` trials of `study` in `into`, the second round, unless they are there."""
    parameter_name = naming_of(into)
    known = {digest(queued_params(trial)) for trial in into.get_trials(deepcopy=False)}
    for trial in ranked_trials(study)[:count]:
        params = current_params(trial)
        if digest(params) not in known:
            into.enqueue_trial({parameter_name(path): value for path, value in params.items()})

"""The study: an Optuna study, which is the truth about a sweep. Whatever process dies, it says what is left to do.

It lives in a journal file on a disk that is there after a restart (local or shared), or in a database.
"""

import contextlib
import hashlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.cli.settings import Tree
from cluster.errors import UserError
from pipeline.recipe import Recipe
from pipeline.tuning.sweep import Sweep

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

RUN = "run"
"""Attribute of a trial: the name of its run's folder."""
ERROR = "error"
"""Attribute of a failed trial: why it failed. A trial that was interrupted has none, and is run again."""
_SWEEP = "sweep"


def storage_of(place: str) -> "BaseStorage":
    """The storage at a path of a journal file, or at the URL of a database (`postgresql://...`).

    Raises:
        UserError: a database that is not reached, or a URL that is not understood.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if "://" not in place:
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        Path(place).parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(place))
    try:
        return optuna.storages.RDBStorage(place)
    except Exception as error:  # of whichever driver the URL names; it may repeat the password of the URL
        scheme = place.partition("://")[0]
        raise UserError(
            f"cannot use the {scheme} database of --study ({type(error).__name__}); check its address and password, "
            f"and that the driver for {scheme} is installed"
        ) from None


def open_study(place: str, name: str, sweep: Sweep, recipe: Recipe) -> "Study":
    """The study `name`, made if it is not there, with the sampler that the sweep asks for.

    Raises:
        UserError: the study there was begun with another space, objective or recipe.
    """
    import optuna

    study = optuna.create_study(
        storage=storage_of(place),
        study_name=name,
        directions=list(sweep.directions),
        sampler=_sampler(sweep),
        load_if_exists=True,
    )
    with _experimental():
        study.set_metric_names(list(sweep.names))
    begun_with = _identity(sweep, recipe)
    stored = study.user_attrs.get(_SWEEP)
    if stored is None:
        study.set_user_attr(_SWEEP, begun_with)
    elif stored != begun_with:
        changed = [key for key in begun_with if stored.get(key) != begun_with[key]]
        raise UserError(
            f"study {name} in {place.partition('://')[0] if '://' in place else place} was begun with another "
            f"{' and another '.join(changed)}; go back to the old one, or give the new sweep another --name"
        )
    return study


def _sampler(sweep: Sweep) -> Any:
    import optuna

    if len(sweep.names) > 1:
        return optuna.samplers.NSGAIISampler(seed=sweep.seed, population_size=max(4, sweep.startup_trials))
    with _experimental():
        # What a space with conditions needs.
        return optuna.samplers.TPESampler(
            multivariate=True, group=True, n_startup_trials=sweep.startup_trials, seed=sweep.seed
        )


@contextlib.contextmanager
def _experimental() -> Iterator[None]:
    """Without the warning that what is used may change in a later version; constraints.txt holds the tested one."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _identity(sweep: Sweep, recipe: Recipe) -> dict[str, str]:
    """What must stay the same for results to compare, each as a hash."""
    return {
        "space": _digest({name: one.model_dump(mode="json") for name, one in sweep.space.items()}),
        "objective": _digest([sweep.objective, sweep.steps_fraction, sweep.judge_steps, sweep.pairs]),
        "recipe": _digest(_learned(recipe)),
    }


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def run_name(recipe: Recipe) -> str:
    """Name of the run of a trial: the same settings have the same run, so that no work is done twice."""
    return "trial-" + _digest(_learned(recipe))[:12]


def changes(recipe: Recipe) -> Tree:
    """The settings of a recipe that are not the defaults."""
    return _differences(recipe.model_dump(mode="json"), Recipe().model_dump(mode="json"))


def _learned(recipe: Recipe) -> Tree:
    """The changed settings that decide what a run learns. A setting that is new in a later version is not among them
    as long as it has its default, so that a study outlives an upgrade."""
    return {name: value for name, value in changes(recipe).items() if name in ("seed", "model", "training")}


def _differences(tree: Tree, base: Tree) -> Tree:
    """The entries of `tree` that are not those of `base`."""
    found: Tree = {}
    for name, value in tree.items():
        below = base.get(name)
        if isinstance(value, dict) and isinstance(below, dict):
            if inner := _differences(value, below):
                found[name] = inner
        elif value != below:
            found[name] = value
    return found


def settle(study: "Study") -> int:
    """Mark what another driver left unfinished as failed and queue its values again; the number of such trials.

    Only one driver may run a sweep at a time; whoever calls this must hold the sweep's lock.
    """
    from optuna.trial import TrialState

    interrupted = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for trial in interrupted:
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params)
    return len(interrupted)


def settled(study: "Study") -> list["FrozenTrial"]:
    """The trials that count: complete ones, and those that failed by an error of their own."""
    from optuna.trial import TrialState

    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))
    return [one for one in finished if one.state == TrialState.COMPLETE or ERROR in one.user_attrs]


def complete(study: "Study") -> list["FrozenTrial"]:
    """The complete trials, best first; with several objectives the Pareto front first."""
    from optuna.study import StudyDirection
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    signs = [-1.0 if direction == StudyDirection.MAXIMIZE else 1.0 for direction in study.directions]
    front = {one.number for one in study.best_trials} if trials and len(signs) > 1 else set[int]()
    return sorted(
        trials, key=lambda one: (one.number not in front, [sign * value for sign, value in zip(signs, one.values)])
    )


def promote(study: "Study", into: "Study", count: int) -> None:
    """Queue the values of the best `count` trials of `study` in the study of the second round, once."""
    known = {_digest(_values(one)) for one in into.get_trials(deepcopy=False)}
    for trial in complete(study)[:count]:
        if _digest(dict(trial.params)) not in known:
            into.enqueue_trial(trial.params)


def _values(trial: "FrozenTrial") -> Mapping[str, Any]:
    """Values of a trial, also of one that waits for its turn."""
    fixed: dict[str, Any] = dict(trial.system_attrs.get("fixed_params", {}))
    return fixed or dict(trial.params)

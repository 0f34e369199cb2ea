"""Names of Optuna parameters: dotted paths of the searched settings, or former paths in a study created with them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cluster.cli.former_names import current_path
from pipeline.former_names import SETTINGS
from pipeline.recipe import Recipe

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


def former_path(path: str) -> str:
    """Return the first name that a setting, or an element of it, ever had; the path itself if it was never renamed."""
    for former, current in SETTINGS.items():
        if path == current or path.startswith(f"{current}."):
            return former + path.removeprefix(current)
    return path


def naming_of(study: "Study") -> Callable[[str], str]:
    """Return the function from a setting's path to its parameter name in `study`.

    A study of an earlier version keeps the former names, because Optuna learns per name. Any other study has the
    current names.
    """
    names = {name for trial in study.get_trials(deepcopy=False) for name in (*trial.params, *_queued(trial))}
    return former_path if any(current_path(name, Recipe) != name for name in names) else str


def current_params(trial: "FrozenTrial") -> dict[str, Any]:
    """Return the parameters of a trial by the current paths of their settings."""
    return {current_path(name, Recipe): value for name, value in trial.params.items()}


def queued_params(trial: "FrozenTrial") -> dict[str, Any]:
    """Return the parameters that a trial was queued with, or else its parameters, by current paths."""
    return {current_path(name, Recipe): value for name, value in _queued(trial).items()} or current_params(trial)


def _queued(trial: "FrozenTrial") -> dict[str, Any]:
    queued: dict[str, Any] = trial.system_attrs.get("fixed_params", {})
    return queued

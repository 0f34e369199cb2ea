"""The results of a finished sweep: the best settings as a recipe, and a page that shows how they were found."""

import sys
from typing import TYPE_CHECKING, Any

from cluster.cli.yaml_file import to_yaml
from cluster.errors import UserError
from cluster.storage import api as storage
from pipeline.tuning.identity import non_default_settings
from pipeline.tuning.page import write_page
from pipeline.tuning.parameter_names import current_params
from pipeline.tuning.study import ERROR, finished_trials, ranked_trials

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    from pipeline.tuning.space import Space
    from pipeline.tuning.trial import SweepContext


def write_results(first: "Study", second: "Study | None", space: "Space", context: "SweepContext") -> None:
    """Write best.yaml and sweep.html into the folder of the sweep, and print a summary.

    Raises:
        UserError: no trial is complete, so that there is no best one.
    """
    deciding = second or first
    ranked = ranked_trials(deciding)
    failed = sum(ERROR in trial.user_attrs for trial in finished_trials(first))
    lines = [f"{len(ranked_trials(first))} trials complete, {failed} failed"]
    if ranked:
        best = ranked[0]
        url = storage.join(context.url, "best.yaml")
        storage.write_bytes(url, best_recipe(best, space, context).encode())
        lines += [f"best: trial {best.number} of {deciding.study_name}, {_scores(best, context)}", f"recipe: {url}"]
    page = write_page(first, second, space, context)
    lines.append(f"page:   {page}")
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    if not ranked:
        reasons = [trial.user_attrs[ERROR] for trial in finished_trials(deciding) if ERROR in trial.user_attrs]
        cause = f"the first one failed: {reasons[0]}; " if reasons else ""
        raise UserError(
            f"no trial of {deciding.study_name} is complete, so there is no best recipe; {cause}fix the cause ({page} "
            "lists all of them), and search again under another --name"
        )


def best_recipe(trial: "FrozenTrial", space: "Space", context: "SweepContext") -> str:
    """Return the recipe of a trial with all steps: YAML for `vdsm train --config` with the non-default settings."""
    head = f"# Trial {trial.number} of the sweep, on validation identities: {_scores(trial, context)}.\n"
    tree = non_default_settings(space.recipe(space.suggest(_Replay(current_params(trial)))))
    return head + to_yaml(tree)


def _scores(trial: "FrozenTrial", context: "SweepContext") -> str:
    scores = zip(context.sweep.objectives, trial.values, strict=True)
    return ", ".join(f"{name} {value:.4f}" for name, value in scores)


class _Replay:
    """Replays the values of a finished trial."""

    def __init__(self, params: dict[str, Any]) -> None:
        self._params = params

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return float(self._params[name])

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return int(self._params[name])

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return self._params[name]

"""What a finished sweep leaves: the best settings as a recipe, and a page that shows how they were found."""

import logging
import sys
from typing import TYPE_CHECKING, Any

import yaml

from cluster.storage import api as storage
from pipeline.tuning.study import ERROR, changes, complete, settled

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    from pipeline.tuning.space import Space, Values
    from pipeline.tuning.trial import SweepContext

log = logging.getLogger(__name__)


def write_results(first: "Study", second: "Study | None", space: "Space", setting: "SweepContext") -> None:
    """Write best.yaml and sweep.html into the folder of the sweep, and say what came out."""
    from pipeline.tuning.page import write_page

    deciding = second or first
    ranked = complete(deciding)
    failed = sum(ERROR in one.user_attrs for one in settled(first))
    lines = [f"{len(complete(first))} trials complete, {failed} failed"]
    if ranked:
        best = ranked[0]
        place = storage.join(setting.url, "best.yaml")
        storage.write_bytes(place, best_recipe(best, space, setting).encode())
        named = ", ".join(f"{name} {value:.4f}" for name, value in zip(setting.sweep.names, best.values, strict=True))
        lines += [f"best: trial {best.number} of {deciding.study_name}, {named}", f"recipe: {place}"]
    lines.append(f"page:   {write_page(first, second, space, setting)}")
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def best_recipe(trial: "FrozenTrial", space: "Space", setting: "SweepContext") -> str:
    """The recipe of a trial with all steps: YAML for `vdsm train --config`, holding what differs from the defaults."""
    named = ", ".join(f"{name} {value:.4f}" for name, value in zip(setting.sweep.names, trial.values, strict=True))
    head = f"# Trial {trial.number} of the sweep, on validation identities: {named}.\n"
    tree = changes(space.recipe(values_of(trial, space)))
    return head + yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, width=100)


def values_of(trial: "FrozenTrial", space: "Space") -> "Values":
    """The values of a finished trial at their paths."""
    return space.suggest(_Again(trial.params))


class _Again:
    """Gives the values of a finished trial to whoever asks for a new one's."""

    def __init__(self, params: dict[str, Any]) -> None:
        self._params = params

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """The value that the trial had."""
        return float(self._params[name])

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """The value that the trial had."""
        return int(self._params[name])

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """The value that the trial had."""
        return self._params[name]

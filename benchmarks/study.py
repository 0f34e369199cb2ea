"""Speed of suggesting the next trial of a long sweep, and of writing its page.

    python benchmarks/study.py --trials 1000 --json

Fills a study of the shipped annealing space with synthetic scores, in a journal file, then measures.
"""

import math
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from arguments import ROOT, machine, parser, show

from cluster.cli import recipe_file, settings
from pipeline.recipe import Recipe
from pipeline.tuning.page import write_page
from pipeline.tuning.space import Space
from pipeline.tuning.study import open_study
from pipeline.tuning.sweep import read_sweep
from pipeline.tuning.trial import SweepContext


def main() -> None:
    """Measure and print."""
    command = parser(__doc__)
    command.add_argument("--trials", type=int, default=1000, help="trials in the study before the measurement")
    options = command.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        show(measure(Path(folder), options.trials), as_json=options.json)


def measure(folder: Path, trials: int) -> dict[str, Any]:
    """Measure a study of `trials` trials in `folder`."""
    sweep = read_sweep(ROOT / "configs" / "sweeps" / "annealing.yaml")
    tree = recipe_file.read_recipe(ROOT / "configs" / "quickstart.yaml", Recipe)
    recipe = settings.validated(Recipe, settings.merge(settings.defaults(Recipe), tree), lambda path: "")
    space = Space(sweep.space, recipe)
    study = open_study(str(folder / "study.journal"), "long", sweep, recipe)
    empty_s = timed(lambda: study.tell(study.ask(), 0.0))
    generator = random.Random(0)
    _fill(study, space, trials, generator)
    # As after a restart: the journal is read from the file.
    began = time.perf_counter()
    study = open_study(str(folder / "study.journal"), "long", sweep, recipe)
    open_s = time.perf_counter() - began
    suggest_s = [timed(lambda: _next(study, space, generator)) for _ in range(10)]
    began = time.perf_counter()
    page = write_page(study, None, space, SweepContext(sweep=sweep, data="", url=str(folder), judge=None))
    page_s = time.perf_counter() - began
    return {
        "trials": trials,
        "settings": len(sweep.space),
        "seconds_to_open_study": round(open_s, 3),
        "seconds_per_suggestion_median": round(statistics.median(suggest_s), 3),
        "seconds_per_suggestion_max": round(max(suggest_s), 3),
        "seconds_per_suggestion_of_empty_study": round(empty_s, 4),
        "seconds_to_write_page": round(page_s, 2),
        "page_mb": round(Path(page).stat().st_size / 1e6, 2),
        "machine": machine(),
    }


def _fill(study: Any, space: Space, trials: int, generator: random.Random) -> None:
    """Add trials with random values and synthetic scores."""
    from optuna.distributions import FloatDistribution
    from optuna.trial import create_trial

    distributions = {path: FloatDistribution(one.low, one.high, log=one.log) for path, one in space.parameters.items()}
    created = []
    for _ in range(trials):
        params = {
            path: math.exp(generator.uniform(math.log(one.low), math.log(one.high)))
            if one.log
            else generator.uniform(one.low, one.high)
            for path, one in space.parameters.items()
        }
        score = math.exp(-sum(abs(math.log(value)) for value in params.values()) / 10)
        created.append(create_trial(params=params, distributions=distributions, value=score))
    study.add_trials(created)


def _next(study: Any, space: Space, generator: random.Random) -> None:
    trial = study.ask()
    space.suggest(trial)
    study.tell(trial, generator.random())


def timed(work: Any) -> float:
    """Return the seconds that `work()` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()

"""sweep.html, opened in a browser."""

from pathlib import Path

import pytest
from optuna.trial import TrialState

from pipeline.recipe import Recipe
from pipeline.tuning.page import write_page
from pipeline.tuning.space import Parameter, Space
from pipeline.tuning.study import ERROR, open_study, promote
from pipeline.tuning.sweep import Sweep
from pipeline.tuning.trial import SweepContext
from tests.pipeline.chromium import Chromium

RATE = "training.stage1.learning_rate"
SPACE = {
    RATE: Parameter(low=1e-4, high=1e-2, log=True),
    "model.num_experts": Parameter(choices=(20, 40)),
    # enough settings to make the slices wider than a screen
    **{
        f"training.stage1.annealing.{name}": Parameter(low=0.1, high=9.5)
        for name in ("static.start", "static.end", "dynamics.end", "temperature.start")
    },
}


@pytest.mark.parametrize("objective", [pytest.param("disentanglement", marks=pytest.mark.long), "both"])
def test_the_page_shows_its_charts_fits_a_phone_and_makes_no_requests(
    tmp_path: Path, objective: str, chromium: str
) -> None:
    sweep = Sweep.model_validate({"space": SPACE, "objective": objective, "steps_fraction": 0.5, "promoted": 4})
    space = Space(sweep.space, Recipe())
    first = open_study(str(tmp_path / "study.journal"), "s", sweep, Recipe())
    second = open_study(str(tmp_path / "study.journal"), "s/second-round", sweep, Recipe())
    for number in range(10):
        trial = first.ask()
        space.suggest(trial)
        first.tell(trial, [number / 10, -number % 3][: len(sweep.objectives)])
    failed = first.ask()
    failed.set_user_attr(ERROR, "it has <b>failed</b>")
    first.tell(failed, state=TrialState.FAIL)
    promote(first, second, 4)
    for _ in range(4):
        trial = second.ask()
        space.suggest(trial)
        second.tell(trial, [trial.params[RATE], 1.0][: len(sweep.objectives)])
    url = write_page(first, second, space, SweepContext(sweep=sweep, data="", url=str(tmp_path), judge=None))
    with Chromium(chromium) as browser:
        browser.open(Path(url), width=1200)
        assert browser.run("document.documentElement.scrollWidth") == 1200
        drawn = (
            "[...document.querySelectorAll('.plotly-graph-div')].filter(one => one.querySelector('.main-svg')).length"
        )
        assert browser.run(drawn) == 4 * len(sweep.objectives) + (objective == "both")
        browser.open(Path(url), width=375)
        assert browser.run("document.documentElement.scrollWidth") == 375
        text = browser.run("document.body.innerText")
        assert "temperature.start" in text
        assert "..." not in text  # no name is cut off
        assert "4 settings ran in both rounds" in text
        assert "it has <b>failed</b>" in text
        assert browser.console_errors == []
        requested = {request for request in browser.requests if not request.startswith("data:")}
        assert requested == {Path(url).as_uri()}

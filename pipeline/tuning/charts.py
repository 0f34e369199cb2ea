"""Optuna's charts of a study as HTML: progress, importances, slices, parallel coordinates, Pareto front."""

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from pipeline.tuning.parameter_names import current_params
from pipeline.tuning.study import ranked_trials

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    from pipeline.tuning.space import Space

LABEL_LENGTH = 20
"""Charts cut off names of this many characters."""


class Chart(NamedTuple):
    """A chart with its heading."""

    title: str
    caption: str
    """How to read it, in a sentence."""
    html: Markup


def short_names(space: "Space") -> dict[str, str]:
    """Return a short, unique name of each searched path: its last parts, as many as are needed.

    Two parts are kept where charts have room for them, because `end` alone says little.
    """
    names = {}
    for path in space.parameters:
        parts = path.split(".")
        fewest = 2 if len(parts) > 2 and len(".".join(parts[-2:])) < LABEL_LENGTH else 1
        for count in range(fewest, len(parts) + 1):
            short = ".".join(parts[-count:])
            matches = sum(other.endswith(f".{short}") or other == short for other in space.parameters)
            if not short[0].isdigit() and matches == 1:
                break
        names[path] = short
    return names


def draw_charts(study: "Study", space: "Space") -> list[Chart]:
    """Return every chart that the study allows; none if fewer than two trials are complete."""
    if len(ranked_trials(study)) < 2:
        return []
    with warnings.catch_warnings():
        # Optuna warns once per setting that few trials make importances rough.
        warnings.simplefilter("ignore", UserWarning)
        return _draw(_with_short_names(study, short_names(space)), study.metric_names or [])


def plotly_script() -> Markup:
    """Return the script of plotly.js, which draws the charts."""
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())  # the library's own script


def _with_short_names(study: "Study", short: dict[str, str]) -> "Study":
    """Return an in-memory copy with short parameter names, because charts cut off long ones. Numbers are kept."""
    import optuna
    from optuna.trial import TrialState, create_trial

    renamed = optuna.create_study(directions=study.directions)
    for trial in study.get_trials(deepcopy=False):
        complete = trial.state == TrialState.COMPLETE
        names = {name: short[path] for name, path in zip(trial.params, current_params(trial), strict=True)}
        renamed.add_trial(
            create_trial(
                state=TrialState.COMPLETE if complete else TrialState.FAIL,
                values=trial.values if complete else None,
                params={names[name]: value for name, value in trial.params.items()},
                distributions={names[name]: distribution for name, distribution in trial.distributions.items()},
            )
        )
    return renamed


def _draw(study: "Study", objectives: list[str]) -> list[Chart]:
    import optuna.visualization as plots
    from optuna.importance import PedAnovaImportanceEvaluator

    several = len(study.directions) > 1
    charts: list[Chart] = []
    for index, name in enumerate(objectives):
        target = {"target": _objective(index), "target_name": name} if several else {"target_name": name}
        suffix = f": {name}" if several else ""
        evaluator = PedAnovaImportanceEvaluator()
        charts += [
            _chart(f"Progress{suffix}", "Each point is a trial.", plots.plot_optimization_history(study, **target)),
            _chart(
                f"Importance{suffix}",
                "How well each setting alone separates the better trials from the others (PED-ANOVA).",
                plots.plot_param_importances(study, evaluator=evaluator, **target),
            ),
            _chart(
                f"Slices{suffix}", "One panel per setting; later trials are darker.", plots.plot_slice(study, **target)
            ),
            _chart(
                f"Parallel coordinates{suffix}",
                "Each line is a trial; better trials are darker.",
                plots.plot_parallel_coordinate(study, **target),
            ),
        ]
    if several:
        front = plots.plot_pareto_front(study)
        charts.insert(0, _chart("Pareto front", "No trial is better than these in both objectives.", front))
    return charts


def _objective(index: int) -> "Callable[[FrozenTrial], float]":
    return lambda trial: trial.values[index]


def _chart(title: str, caption: str, figure: Any) -> Chart:
    """Return a Plotly figure as a chart, in colours that are legible on light and on dark backgrounds."""
    figure.update_layout(
        title=None, paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font_color="#7a808a",
        margin={"l": 60, "r": 20, "t": 20, "b": 50}, height=380,
    )  # fmt: skip
    figure.update_xaxes(gridcolor="rgba(128,128,128,.25)", zerolinecolor="rgba(128,128,128,.25)")
    figure.update_yaxes(gridcolor="rgba(128,128,128,.25)", zerolinecolor="rgba(128,128,128,.25)")
    html = figure.to_html(full_html=False, include_plotlyjs=False, config={"displayModeBar": False, "responsive": True})
    # Plotly generated it from numbers and from names that were checked against the settings.
    return Chart(title, caption, Markup(html))

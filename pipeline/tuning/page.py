"""sweep.html: how the best settings were found, in one file that asks nothing of the network."""

import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from markupsafe import Markup

from cluster.storage import api as storage
from pipeline.report.films import Film, film, shown_fps
from pipeline.report.grids import action_donors, decode_cells, identity_donors, real
from pipeline.report.page import fill
from pipeline.report.pictures import mosaic
from pipeline.tuning.study import ERROR, RUN, complete, settled

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    from pipeline.tuning.space import Space
    from pipeline.tuning.trial import SweepContext

log = logging.getLogger(__name__)

SHOWN = 3
"""Trials whose transfers are shown."""
LISTED = 30
"""Trials in the table, from the best on."""
LABEL = 20
"""Charts cut names of so many letters."""
ACROSS, DOWN = 8, 6
"""Identities and actions in a picture."""


def write_page(first: "Study", second: "Study | None", space: "Space", setting: "SweepContext") -> str:
    """Write sweep.html into the folder of the sweep; gives its place."""
    deciding = second or first
    ranked = complete(deciding)
    page = fill(
        "sweep.html.j2",
        {},
        title=first.study_name,
        sweep=setting.sweep,
        names=setting.sweep.names,
        counts={
            "complete": len(complete(first)),
            "failed": len(failures(first)),
            "second": len(ranked) if second else 0,
        },
        ranked=ranked[:LISTED],
        short=short_names(space),
        searched={path: parameter.describe() for path, parameter in space.parameters.items()},
        failed=failures(first) + (failures(second) if second else []),
        charts=charts(first, space),
        agreement=agreement(first, second) if second else None,
        films=films(ranked[:SHOWN], setting),
        plotly=plotly_script() if len(complete(first)) > 1 else "",
    )
    place = storage.join(setting.url, "sweep.html")
    storage.write_bytes(place, page.encode())
    return place


def failures(study: "Study") -> list[tuple[int, str]]:
    """Number and reason of each failed trial."""
    return [(one.number, one.user_attrs[ERROR]) for one in settled(study) if ERROR in one.user_attrs]


def short_names(space: "Space") -> dict[str, str]:
    """A short name of each path: its last words, as many as make it differ from the others; two where charts have the
    room, for `end` alone says little."""
    named = {}
    for path in space.parameters:
        parts = path.split(".")
        fewest = 2 if len(parts) > 2 and len(".".join(parts[-2:])) < LABEL else 1
        for count in range(fewest, len(parts) + 1):
            short = ".".join(parts[-count:])
            if (
                not short[0].isdigit()
                and sum(other.endswith(f".{short}") or other == short for other in space.parameters) == 1
            ):
                break
        named[path] = short
    return named


def charts(study: "Study", space: "Space") -> list[tuple[str, str, Markup]]:
    """(title, what it tells, the drawing) of everything that a study of more than one trial can show."""
    if len(complete(study)) < 2:
        return []
    with warnings.catch_warnings():
        # That few trials make importances rough need not be said once per setting.
        warnings.simplefilter("ignore", UserWarning)
        return _charts(_renamed(study, short_names(space)), study.metric_names or [])


def _renamed(study: "Study", short: dict[str, str]) -> "Study":
    """A copy in memory whose settings have short names, for charts cut long ones off. Trials keep their numbers."""
    import optuna
    from optuna.trial import TrialState, create_trial

    copied = optuna.create_study(directions=study.directions)
    for one in study.get_trials(deepcopy=False):
        done = one.state == TrialState.COMPLETE
        copied.add_trial(
            create_trial(
                state=TrialState.COMPLETE if done else TrialState.FAIL,
                values=one.values if done else None,
                params={short[path]: value for path, value in one.params.items()},
                distributions={short[path]: kind for path, kind in one.distributions.items()},
            )
        )
    return copied


def _charts(study: "Study", names: list[str]) -> list[tuple[str, str, Markup]]:
    import optuna.visualization as drawn
    from optuna.importance import PedAnovaImportanceEvaluator

    many = len(study.directions) > 1
    found: list[tuple[str, str, Any]] = []
    for place, name in enumerate(names):
        target = {"target": _value(place), "target_name": name} if many else {"target_name": name}
        suffix = f": {name}" if many else ""
        found += [
            (f"Over the trials{suffix}", "Each point is a trial.", drawn.plot_optimization_history(study, **target)),
            (
                f"Importance{suffix}",
                "How far each setting alone tells the better trials from the others (PED-ANOVA).",
                drawn.plot_param_importances(study, evaluator=PedAnovaImportanceEvaluator(), **target),
            ),
            (
                f"Slices{suffix}",
                "One setting after the other; later trials are darker.",
                drawn.plot_slice(study, **target),
            ),
            (
                f"All settings together{suffix}",
                "Each line is a trial, darker for the better ones.",
                drawn.plot_parallel_coordinate(study, **target),
            ),
        ]
    if many:
        found.insert(0, ("Pareto front", "No trial is better in both.", drawn.plot_pareto_front(study)))
    return [(title, text, _division(figure)) for title, text, figure in found]


def _value(place: int) -> Any:
    return lambda trial: trial.values[place]


def _division(figure: Any) -> Markup:
    """A figure as HTML, in colours that can be read on light and on dark paper."""
    figure.update_layout(
        title=None, paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font_color="#7a808a",
        margin={"l": 60, "r": 20, "t": 20, "b": 50}, height=380,
    )  # fmt: skip
    figure.update_xaxes(gridcolor="rgba(128,128,128,.25)", zerolinecolor="rgba(128,128,128,.25)")
    figure.update_yaxes(gridcolor="rgba(128,128,128,.25)", zerolinecolor="rgba(128,128,128,.25)")
    text = figure.to_html(full_html=False, include_plotlyjs=False, config={"displayModeBar": False, "responsive": True})
    return Markup(text)  # made by plotly of numbers and of names that were checked against the settings


def plotly_script() -> Markup:
    """The library that draws the charts."""
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())  # a library's own script


def agreement(first: "Study", second: "Study") -> str:
    """How far the ranks of the short runs are those of the same settings with all steps, in words."""
    pairs = []
    for trial in complete(second):
        for other in complete(first):
            if other.params == trial.params:
                pairs.append((other.values[0], trial.values[0]))
                break
    if len(pairs) < 3:
        return f"{len(pairs)} settings ran in both rounds, too few to compare their ranks."
    ranks = np.argsort(np.argsort(np.array(pairs), axis=0), axis=0).astype(float)
    correlation = float(np.corrcoef(ranks.T)[0, 1])
    return f"{len(pairs)} settings ran in both rounds; their ranks agree by {correlation:.2f} (1: same order, 0: none)."


def films(ranked: "list[FrozenTrial]", setting: "SweepContext") -> list[tuple[int, Film]]:
    """Action transfer between validation identities by the best trials. A run that cannot be read is left out."""
    found = []
    for trial in ranked:
        try:
            found.append((trial.number, transfer(setting.run_url(trial.user_attrs[RUN]), setting)))
        except (ValueError, OSError, KeyError) as error:
            log.warning("no picture of trial %d: %s", trial.number, error)
    return found


@torch.inference_mode()
def transfer(run: str, setting: "SweepContext") -> Film:
    """First column: who gives the action; first row: who performs it."""
    from pipeline.runs.store import load_run
    from pipeline.tuning.objective import BATCH_CLIPS, divide
    from preprocessing.dataset.reader import ClipDataset
    from vdsm.evaluation.model import encode_clips
    from vdsm.evaluation.outputs import SwapDecoder

    model, recipe, info = load_run(run)
    clips = ClipDataset(setting.data, "train")
    shown = divide(clips, recipe).validation
    length = recipe.training.stage2.clip_frames
    actions, people = action_donors(shown)[:DOWN], identity_donors(shown, ACROSS)
    decoder = SwapDecoder(model.eval(), encode_clips(model, shown, length, BATCH_CLIPS), length, BATCH_CLIPS)
    cells = decode_cells(
        decoder, np.repeat(actions, len(people)), np.tile(people, len(actions)), info["stage"] >= 2, "drawing"
    )
    donors = real(shown, actions, length)
    rows = [[donor, *cells[row * len(people) : (row + 1) * len(people)]] for row, donor in enumerate(donors)]
    picture = mosaic([[None, *real(shown, people, length)], *rows], header_row=True, header_column=True)
    fps = float(np.median(clips.fps)) if len(clips) else None
    alt = "the clip on the left of each row gives the action, the one above each column the identity"
    return film(picture, shown_fps(fps), alt, donors[0].shape[1])
